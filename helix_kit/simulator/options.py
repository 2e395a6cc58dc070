"""Options of a simulation, declared once and passed whole: `simulate` collects its keywords in one record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Literal

from helix_kit._plugins import is_own_code
from helix_kit.errors import InputError
from helix_kit.flow import Edge
from helix_kit.placement.plan import Plan
from helix_kit.profiles.engines import EngineRecord
from helix_kit.profiles.machine_speed import RUNTIME_LIMITS
from helix_kit.scheduling import PAGE_TOKENS, PolicyChoice, policy_name, resolve_policy
from helix_kit.simulator.faults import Fault
from helix_kit.workload.request import Request

OFFLINE_WARMUP_S, OFFLINE_DURATION_S = 60.0, 600.0
ONLINE_TAIL_S = 60.0
"""Online runs go on for so long after the last arrival, and for so long at least."""


@dataclass(frozen=True)
class Feed:
    """How offline requests are issued under the published rules: some at first, 0.1 s apart, then more.

    With a `kv_mark`, one more is issued whenever a prompt or a request finishes and the expected KV use of the tightest
    layer is at most the mark. Without a mark, one is issued for each request that finishes.

    Examples
    --------
    >>> Feed(7, kv_mark=None)
    Feed(initial=7, kv_mark=None, shared_draws=None)
    """

    initial: int = 20
    """Requests issued at first."""
    kv_mark: float | None = 0.8
    """Share of the tightest layer's KV cache up to which more are issued; None: one for each that finishes."""
    shared_draws: int | None = None
    """The policy's generator also draws a number below this for each request, as the published sampler of lengths
    does; None: it does not."""


@dataclass(frozen=True)
class BatchingOptions:
    """How workers batch in range execution; the defaults are those of our runtime.

    Examples
    --------
    >>> BatchingOptions(max_in_flight=3).step_tokens
    512
    """

    step_tokens: int = RUNTIME_LIMITS.step_tokens
    """Tokens that a step may take, prefill and decode together."""
    chunk_tokens: int = RUNTIME_LIMITS.chunk_tokens
    """Tokens of a prefill chunk."""
    only_stage_goes_on: bool = True
    """Whether a node that holds all layers of a request decodes its new token in the next step, as our workers do.
    False: it waits until the token has been at the coordinator and is back."""
    page_tokens: int = PAGE_TOKENS
    """Tokens of a KV page in one layer."""
    prefix_cache: bool = True
    """Whether requests share the KV pages of equal beginnings. It matters for workloads that name their contents."""
    max_in_flight: int | None = None
    """Requests that may be served at once; None: as many as the KV caches hold."""


@dataclass(frozen=True, kw_only=True)
class SimulationOptions:
    """How a workload is simulated; the fields are the keywords of `helix_kit.simulate`, which describes them.

    Examples
    --------
    >>> SimulationOptions(policy="shortest-queue").policy_name
    'shortest_queue'
    """

    mode: Literal["online", "offline"] = "online"
    """Requests come when they arrive, or wait from the start."""
    policy: PolicyChoice = "helix"
    """A policy's name, its class, or a policy."""
    execution: Literal["range", "layerwise"] = "range"
    """Our runtime's rules, or the published simulator's."""
    duration_s: float | None = None
    """Seconds that are measured, after the warm-up; None: see `with_window`."""
    warmup_s: float | None = None
    """Seconds before measuring starts; None: see `with_window`."""
    seed: int = 0
    """Seed of the policy."""
    kv_capacity: Mapping[str, int] | None = None
    """Node -> layer-tokens, in place of the profile's."""
    links: Iterable[Edge] | None = None
    """Links that may be used, in the order that decides ties; None: the policy's usual ones."""
    feed: Feed | None = None
    """How requests are issued (layerwise, offline); None: as published for the policy."""
    faults: Sequence[Fault] = ()
    """What fails or changes during the run (range execution)."""
    batching: BatchingOptions = BatchingOptions()
    """How workers batch (range execution)."""
    record_batches: bool = False
    """Keep every batch."""
    engine: EngineRecord | None = None
    """The serving engine that is simulated; None: our runtime as `batching` says."""
    sorts_samples: bool = False
    """Whether requests are sampled with top-p or top-k, which an engine of replicas takes time for."""
    penalises: bool = False
    """Whether requests have a penalty for repetition, which an engine of replicas takes time for."""

    @property
    def is_offline(self) -> bool:
        """Whether all requests wait from the start."""
        return self.mode == "offline"

    @property
    def policy_name(self) -> str:
        """The policy's name; for the package's own with underscores and in lower case."""
        return policy_name(self.policy)

    def is_published(self, name: str) -> bool:
        """Whether the policy is the package's own policy of that name, not a class or an object of the caller's."""
        return isinstance(self.policy, str) and not is_own_code(self.policy) and self.policy_name == name

    @property
    def window_s(self) -> tuple[float, float]:
        """Start and end in s of what is measured; `with_window` must have filled the two fields in."""
        assert self.warmup_s is not None and self.duration_s is not None, "with_window fills these in"
        return self.warmup_s, self.warmup_s + self.duration_s

    def with_window(self, workload: Sequence[Request]) -> SimulationOptions:
        """The options with the defaults of `warmup_s` and `duration_s` filled in.

        Offline these are 60 s and 600 s. Online there is no warm-up, and the run lasts until 60 s after the last
        arrival.

        Raises
        ------
        InputError
            A number of seconds that is not finite, a negative warm-up or a duration that is not positive.
        """
        warmup_s, duration_s = self.warmup_s, self.duration_s
        if duration_s is not None and not isinstance(duration_s, Real):
            raise self._wrong_seconds("duration_s", duration_s, "above")
        if warmup_s is not None and not isinstance(warmup_s, Real):
            raise self._wrong_seconds("warmup_s", warmup_s, "from")
        if warmup_s is None:
            warmup_s = OFFLINE_WARMUP_S if self.is_offline else 0.0
        if duration_s is None:
            last_s = max((r.arrival_s for r in workload), default=0.0)
            duration_s = OFFLINE_DURATION_S if self.is_offline else max(60.0, last_s + ONLINE_TAIL_S - warmup_s)
        if not 1e-9 <= duration_s < float("inf"):
            raise self._wrong_seconds("duration_s", duration_s, "above")
        if not 0 <= warmup_s < float("inf"):
            raise self._wrong_seconds("warmup_s", warmup_s, "from")
        return replace(self, warmup_s=warmup_s, duration_s=duration_s)

    @staticmethod
    def _wrong_seconds(field: str, value: object, bound: str) -> InputError:
        return InputError(f"expected a finite number of seconds {bound} 0", where="simulate", field=field, value=value)

    def check(self, plan: Plan, workload: Sequence[Request]) -> None:
        """Raise InputError for an empty workload, an unknown option, or a plan that cannot serve."""
        if self.seed < 0:
            raise InputError("expected a whole number of at least 0", where="simulate", field="seed", value=self.seed)
        if len(workload) == 0:
            raise InputError("expected at least one request, the workload is empty", where="simulate", field="workload")
        if self.mode not in {"online", "offline"}:
            raise InputError("expected online or offline", where="simulate", field="mode", value=self.mode)
        if self.execution not in {"range", "layerwise"}:
            raise InputError("expected range or layerwise", where="simulate", field="execution", value=self.execution)
        if self.engine is None or self.engine.execution == "range":
            resolve_policy(self.policy)
        for node in self.kv_capacity or {}:
            if node not in plan.placement:
                raise InputError("expected a node of the plan", where="simulate", field="kv_capacity", value=node)
        if not plan.placement or plan.flow_tokens_per_s <= 0:
            raise InputError(
                "expected a plan that carries flow: its placement covers no pipeline from layer 0 to the last",
                where="simulate", field="plan.flow_tokens_per_s", value=plan.flow_tokens_per_s,
            )  # fmt: skip


__all__ = ["BatchingOptions", "Feed", "SimulationOptions"]
