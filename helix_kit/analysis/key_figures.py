"""The key figures of a plan: what it carries, what it serves under full load, what it costs, what its KV caches hold.

The editors and the notebooks show these figures, measured in the same way everywhere.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from helix_kit.analysis.bottleneck import bottleneck
from helix_kit.analysis.cost import cost
from helix_kit.analysis.request_lengths import pairs_of
from helix_kit.placement.plan import Plan

WARMUP_S, MEASURED_S = 120.0, 600.0
"""Simulated seconds before the measurement, and seconds that are measured.

A backlog begins with prompts on empty machines. On 18 machines in two regions a plan decodes 2 tokens/s from second 30
to 90, and 374 tokens/s over the ten minutes after second 120. A shorter warm-up would measure the start. The search for
served plans begins with full caches instead, so its figure differs a little."""
FAST_TOKENS_PER_S, MIN_SHARE = 4000.0, 0.2
"""Above this flow both times are shortened in proportion, to a fifth at least. Requests then stay for seconds, and
the simulation of tens of thousands of tokens/s would take a minute."""


@dataclass(frozen=True)
class KeyFigures:
    """The key figures of a plan.

    Examples
    --------
    >>> KeyFigures(2045.6, 2045.9, stages=24, kv_requests=180, decode_tokens_per_s=252.0, usd_per_hour=9.072
    ...     ).usd_per_million_tokens
    10.0
    """

    flow_tokens_per_s: float
    """The plan's flow: prompt and output tokens."""
    bound_tokens_per_s: float
    """The proven bound on the flow of any placement."""
    stages: int = 0
    """Machines that a request passes in the deepest pipeline."""
    kv_requests: int = 0
    """Requests of the mean length whose KV caches fit at once."""
    usd_per_hour: float | None = None
    """Price of the machines that carry flow, and of egress at the full flow; None where a price is not known."""
    unpriced: tuple[str, ...] = ()
    """GPUs in use without a price."""
    decode_tokens_per_s: float | None = None
    """Simulated under full load: tokens/s after the first of each request. None: not simulated."""
    prompt_latency_s: float | None = None
    """Simulated: mean seconds from a request's admission to its first token."""
    decode_latency_s: float | None = None
    """Simulated: mean seconds from a token of a request to its next."""
    warmup_s: float | None = None
    """Simulated seconds before the measurement."""
    measured_s: float | None = None
    """Simulated seconds that were measured."""
    joules_per_token: float | None = None
    """Energy of the GPUs in use for a token, input or output, at the full flow: an estimate from TDP and idle power."""

    @property
    def usd_per_million_tokens(self) -> float | None:
        """Dollars for a million decoded tokens: usd/h / (tokens/s x 3600) x 10^6. None where it is not known."""
        if self.usd_per_hour is None or not self.decode_tokens_per_s:
            return None
        return round(self.usd_per_hour / (self.decode_tokens_per_s * 3600) * 1e6, 9)

    def to_dict(self) -> dict[str, object]:
        """The figures by name, for tables and JSON."""
        return {**asdict(self), "usd_per_million_tokens": self.usd_per_million_tokens}


def key_figures(plan: Plan, *, simulated: bool = True) -> KeyFigures:
    """The key figures of a plan.

    Parameters
    ----------
    plan
        The plan; it may carry no flow.
    simulated
        Whether to simulate the plan under full load, by the rules of our runtime (about a second).

    Returns
    -------
    KeyFigures
        The figures. Those of the simulation are None without one, and zero where the plan carries no flow.

    Examples
    --------
    >>> from helix_kit import Cluster, Model, plan
    >>> cluster = Cluster.model_validate({"name": "six", "nodes": [{"gpu": "L4", "count": 6}]})
    >>> six = plan(cluster, Model.preset("llama-30b"), method="proportional")
    >>> figures = key_figures(six, simulated=False)
    >>> figures.stages, figures.decode_tokens_per_s
    (6, None)
    """
    paid = cost(plan)
    measured: dict[str, float] = {}
    if simulated:
        from helix_kit.simulator import score  # numba takes a second to load.

        warmup_s, measured_s = window_s(plan)
        found = score(plan, warmup_s=warmup_s, duration_s=measured_s, lengths=pairs_of(plan))
        measured = {
            "decode_tokens_per_s": found.decode_tokens_per_s,
            "prompt_latency_s": found.prompt_latency_s,
            "decode_latency_s": found.decode_latency_s,
            "warmup_s": warmup_s,
            "measured_s": measured_s,
        }
    carries = plan.flow_tokens_per_s > 0
    return KeyFigures(
        plan.flow_tokens_per_s,
        plan.bound_tokens_per_s,
        stages=max((len(stages) for stages, _ in plan.pipelines), default=0) if carries else 0,
        kv_requests=bottleneck(plan).requests,
        usd_per_hour=paid.total_usd_per_hour,
        unpriced=paid.unpriced,
        joules_per_token=paid.joules_per_token if carries else None,
        **measured,
    )


def window_s(plan: Plan) -> tuple[float, float]:
    """Seconds of warm-up and seconds measured for a plan, see `FAST_TOKENS_PER_S`."""
    share = min(1.0, max(MIN_SHARE, FAST_TOKENS_PER_S / max(plan.flow_tokens_per_s, 1e-9)))
    return round(WARMUP_S * share), round(MEASURED_S * share)
