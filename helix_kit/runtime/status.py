"""What `Engine.status` returns: the workers, the queue and the counters of one moment."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

from helix_kit._summary import Summarised, counted, number


class Loss(NamedTuple):
    """One lost worker.

    Attributes
    ----------
    time_s
        When its loss was noticed, on the engine's clock.
    worker
        Its name: the node's, or ``node/i`` where the node has several workers.
    reason
        Why it counts as lost.
    """

    time_s: float
    worker: str
    reason: str


@dataclass(frozen=True, slots=True)
class DroppedCounts:
    """Messages that the coordinator has dropped.

    Attributes
    ----------
    malformed
        Could not be read.
    foreign
        Came from a process without the engine's key.
    stale
        Came from a worker that is no longer in use.
    """

    malformed: int
    foreign: int
    stale: int


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """One worker. The counters, from `pages_used` on, are those of its last heartbeat; zeros before the first.

    Attributes
    ----------
    state
        ``starting``, ``up`` or ``lost``.
    pid
        Its process; None until it is up.
    rank_pids
        The processes that compute its layers together (tensor parallelism); empty where it is one process.
    layers
        The layer range [start, end) that it holds.
    pages
        KV pages of its pool (16 tokens of one layer each); 0 until it is up.
    reason
        Why it was lost; empty otherwise.
    report_age_s
        Age of the counters in seconds; None before the first heartbeat.
    pages_used, pages_peak
        KV pages in use by requests, and most that ever were.
    pages_cached
        KV pages in the prefix cache that no request uses.
    requests
        Requests that it holds.
    steps, busy_s
        Steps run, and seconds spent in them.
    overruns, overrun_s
        Paced steps that took longer than their profile, and by how many seconds together.
    prefill_tokens, decode_tokens
        Tokens computed.
    malformed, foreign, stale
        Messages that it has dropped, as in `DroppedCounts`.
    cpu_s
        CPU time of its process in seconds.
    description
        How it computes its layers: attention, CUDA graphs, dtype; empty until it is up.

    Examples
    --------
    >>> WorkerStatus("starting", pid=None, layers=(0, 6), pages=0, reason="", report_age_s=None).steps
    0
    """

    state: Literal["starting", "up", "lost"]
    pid: int | None
    layers: tuple[int, int]
    pages: int
    reason: str
    report_age_s: float | None
    pages_used: int = 0
    requests: int = 0
    steps: int = 0
    overruns: int = 0
    overrun_s: float = 0
    busy_s: float = 0
    prefill_tokens: int = 0
    decode_tokens: int = 0
    pages_peak: int = 0
    malformed: int = 0
    foreign: int = 0
    stale: int = 0
    cpu_s: float = 0
    pages_cached: int = 0
    rank_pids: tuple[int, ...] = ()
    description: str = ""


@dataclass(frozen=True, slots=True, repr=False)
class EngineStatus(Summarised):
    """The state of an engine at one moment.

    Attributes
    ----------
    workers
        By name.
    waiting, running
        Requests that wait for a pipeline, and that run on one.
    pages_promised
        KV pages promised to requests, on all workers together.
    tokens_out
        Tokens generated since the engine was started.
    prompt_tokens, cached_tokens
        Tokens of the prompts of all requests that were started, and those among them that the prefix caches held.
    coordinator_cpu_s
        CPU time of the coordinator's thread in seconds.
    losses
        Every worker that was lost.
    flow_tokens_per_s
        Flow of the plan over the workers that are up; 0 when they do not cover all layers.
    dropped_messages
        Messages that the coordinator has dropped.

    Examples
    --------
    >>> up = WorkerStatus("up", pid=17, layers=(0, 6), pages=64, reason="", report_age_s=0.4, pages_used=12)
    >>> status = EngineStatus({"a": up}, 0, 1, 24, 8, 0.01, (), 900.0, DroppedCounts(0, 0, 0))
    >>> status.workers["a"].pages_used, status.running
    (12, 1)
    >>> status.to_dict()["workers"]["a"]["layers"]
    [0, 6]
    """

    workers: Mapping[str, WorkerStatus]
    waiting: int
    running: int
    pages_promised: int
    tokens_out: int
    coordinator_cpu_s: float
    losses: tuple[Loss, ...]
    flow_tokens_per_s: float
    dropped_messages: DroppedCounts
    prompt_tokens: int = 0
    cached_tokens: int = 0

    @property
    def prefix_hit_rate(self) -> float:
        """Share of the prompts' tokens that the prefix caches held."""
        return self.cached_tokens / self.prompt_tokens if self.prompt_tokens else 0.0

    @property
    def steps(self) -> int:
        """Steps that all workers have run."""
        return sum(worker.steps for worker in self.workers.values())

    @property
    def overruns(self) -> int:
        """Paced steps of all workers that took longer than their profile."""
        return sum(worker.overruns for worker in self.workers.values())

    def _title(self) -> str:
        return ""

    def _facts(self) -> dict[str, str]:
        return {
            "workers": counted(dict(Counter(worker.state for worker in self.workers.values()))) or "none",
            "requests": f"{self.running} running and {self.waiting} waiting",
            "KV pages promised": f"{self.pages_promised:,}",
            "tokens out": f"{self.tokens_out:,}",
            "prefix cache": f"{self.prefix_hit_rate:.0%} of {self.prompt_tokens:,} prompt tokens",
            "flow": f"{number(self.flow_tokens_per_s)} tokens/s",
            "losses": str(len(self.losses)),
        }

    def to_dict(self) -> dict[str, Any]:
        """The same as plain data (dicts, lists, strings, numbers), as JSON has it."""
        fields = asdict(self)
        for worker in fields["workers"].values():
            worker["layers"], worker["rank_pids"] = list(worker["layers"]), list(worker["rank_pids"])
        fields["losses"] = [list(loss) for loss in self.losses]
        return fields

    def __getitem__(self, name: str) -> Any:
        """The value of `to_dict()`; deprecated, use the attribute."""
        warnings.warn(
            f"status()[{name!r}] is deprecated: use status().{name}, or status().to_dict()",
            DeprecationWarning,
            stacklevel=2,
        )
        return self.to_dict()[name]
