"""What a plan of objective ``served`` did in the simulator: the record `Plan.served`, part of plan.json."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

from helix_kit._summary import Summarised, number


class _Fields(Summarised, BaseModel):
    """A record whose JSON holds the fields that were given, in order, and no others.

    Values can also be read by name: ``served["decode_tokens_per_s"]``, as in the JSON.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    @model_serializer(mode="wrap")
    def _given_only(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        given = self.model_fields_set | set(self.model_extra or {})
        return {name: value for name, value in handler(self).items() if name in given}

    def keys(self) -> list[str]:
        """Names of the fields that were given."""
        return [*(name for name in type(self).model_fields if name in self.model_fields_set), *(self.model_extra or {})]

    def __getitem__(self, name: str) -> Any:
        if name not in self.keys():
            raise KeyError(name)
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:  # type: ignore[override]
        return iter(self.keys())

    def __contains__(self, name: object) -> bool:
        return name in self.keys()

    def get(self, name: str, default: Any = None) -> Any:
        """The value of a field by name, `default` if it was not given."""
        return getattr(self, name) if name in self.keys() else default

    def _title(self) -> str:
        return " ".join(str(self[name]) for name in ("mode", "execution") if name in self)

    def _facts(self) -> dict[str, str]:
        units = {"decode_tokens_per_s": ("decodes", "tokens/s"), "prompt_latency_s": ("prompt latency", "s"),
                 "decode_latency_s": ("decode latency", "s"), "stages": ("stages", "")}  # fmt: skip
        return {text: f"{number(self[name])} {unit}".strip() for name, (text, unit) in units.items() if name in self}


class ServedRow(_Fields):
    """A plan of the Pareto front that the search found.

    Attributes
    ----------
    decode_tokens_per_s, prompt_latency_s, decode_latency_s
        What it served in the simulator: tokens/s after the first of each request, mean seconds to the first token, and
        mean seconds from a token to the next.
    stages
        The largest number of nodes that a request passes.
    flow_tokens_per_s
        Its flow in tokens/s.
    ease
        Kind of node -> share of the flow it could carry, for kinds that are spared.
    placement
        Node name -> layer range [start, end).
    goodput_per_s, attainment, slo_rate_per_s
        For objective ``goodput``: as in `Served`.

    Examples
    --------
    >>> ServedRow(decode_tokens_per_s=310.5, stages=9).stages
    9
    """

    decode_tokens_per_s: float = 0.0
    prompt_latency_s: float = 0.0
    decode_latency_s: float = 0.0
    stages: int = 0
    flow_tokens_per_s: float = 0.0
    ease: dict[str, float] = {}
    placement: dict[str, tuple[int, int]] = {}
    goodput_per_s: float = 0.0
    attainment: float = 0.0
    slo_rate_per_s: float = 0.0


class Served(_Fields):
    """What a plan served in the simulator, and how it was searched for.

    Attributes
    ----------
    decode_tokens_per_s, prompt_latency_s, decode_latency_s
        Means over the window: tokens/s after the first of each request, seconds to the first token, and seconds from a
        token to the next.
    prompts, decode_steps
        First and further tokens within the window.
    window_s
        Seconds over which the means are taken.
    quarter_tokens_per_s, half_tokens_per_s
        Tokens/s in the later half of the time until a quarter, and until half, of the window.
    half_width_tokens_per_s
        Half width of a 95 % interval of the decode tokens/s over the request streams; 0 where none was estimated.
    share_of_window
        Less than 1 where the simulation ended early.
    mode, execution
        Traffic (``offline``, ``online``) and rules of the nodes (``layerwise``, ``range``).
    duration_s, warmup_s
        Simulated seconds that are measured, and seconds before them; both 0 where windows are counted in requests.
    window_requests
        Requests in the window of each run of the last comparison, on average, where runs start with full KV caches; 0
        otherwise. The means may be over longer runs.
    seeds
        Request streams that the means are over.
    simulations, compared
        Plans that the search simulated, and plans in the last comparison.
    stages
        The largest number of nodes that a request passes.
    max_flow_tokens_per_s, max_flow_bound_tokens_per_s, max_flow_gap, max_flow_seconds
        The plan of the most flow: its flow and proven bound in tokens/s, its gap, and the seconds it took.
    progress
        (seconds, best decode tokens/s) over the search.
    pareto
        Plans that no other plan of the search dominates.
    ease
        Kind of node -> share of the flow it could carry, for kinds that are spared.
    slo, rate_per_s
        For objective ``goodput``: the limits in words, and the requests/s that were given, None where the highest rate
        was searched for.
    goodput_per_s, attainment
        Requests/s that kept the limits, and the share of the decided requests that did; at the given rate, or at the
        highest one.
    slo_rate_per_s
        The highest rate at which the SLO held, over all `seeds` together; 0 where a rate was given.

    Examples
    --------
    >>> served = Served.model_validate({"decode_tokens_per_s": 310.5, "stages": 9, "pareto": [{"stages": 9}]})
    >>> served.pareto[0].stages, served["stages"], served.model_dump()["pareto"]
    (9, 9, ({'stages': 9},))
    """

    decode_tokens_per_s: float = 0.0
    prompt_latency_s: float = 0.0
    decode_latency_s: float = 0.0
    prompts: float = 0.0
    decode_steps: float = 0.0
    window_s: float = 0.0
    quarter_tokens_per_s: float = 0.0
    half_tokens_per_s: float = 0.0
    half_width_tokens_per_s: float = 0.0
    share_of_window: float = 1.0
    mode: str = "offline"
    execution: str = "layerwise"
    duration_s: float = 0.0
    warmup_s: float = 0.0
    window_requests: int = 0
    seeds: tuple[int, ...] = ()
    simulations: int = 0
    compared: int = 0
    stages: int = 0
    max_flow_tokens_per_s: float | None = None
    max_flow_bound_tokens_per_s: float | None = None
    max_flow_gap: float | None = None
    max_flow_seconds: float | None = None
    progress: tuple[tuple[float, float], ...] = ()
    pareto: tuple[ServedRow, ...] = ()
    ease: dict[str, float] = {}
    slo: str = ""
    rate_per_s: float | None = None
    goodput_per_s: float = 0.0
    attainment: float = 0.0
    slo_rate_per_s: float = 0.0

    @property
    def is_simulated(self) -> bool:
        """Whether the means were simulated. Otherwise no simulation ended in time, and they are predicted."""
        return self.window_s > 0

    @property
    def goodput_text(self) -> str:
        """What the plan keeps of its SLO, in words; empty without an SLO."""
        if not self.slo:
            return ""
        if not self.is_simulated:
            return f"nothing was measured in the time ({self.slo})"
        kept = f"{number(self.goodput_per_s)} requests/s keep the limits, {self.attainment:.1%} of those decided"
        if self.rate_per_s is not None:
            return f"{kept}, at {number(self.rate_per_s)} requests/s ({self.slo})"
        return f"the SLO holds until {number(self.slo_rate_per_s)} requests/s ({self.slo}); there {kept}"


__all__ = ["Served", "ServedRow"]
