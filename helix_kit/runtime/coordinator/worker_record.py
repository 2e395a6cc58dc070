"""What the coordinator knows of one worker: its state, when it was last heard from, and what it reports."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from helix_kit.runtime.launch.launcher import WorkerProcess
from helix_kit.runtime.spec import WorkerSpec
from helix_kit.runtime.transport.messages import WorkerCounters

State = Literal["starting", "up", "lost"]


@dataclass(slots=True)
class WorkerRecord:
    """One worker of the engine, from its start on. Times are those of `time.monotonic`."""

    spec: WorkerSpec
    process: WorkerProcess
    state: State = "starting"
    doing: str = ""
    """What it says that it is doing while it starts."""
    description: str = ""
    """How it computes its layers; empty until it is ready."""
    endpoint: str = ""
    """Where it receives messages; empty until it has reported that it is ready."""
    pages: int = 0
    """KV pages of its pool; 0 until it is ready."""
    pid: int | None = None
    rank_pids: tuple[int, ...] = ()
    """Processes that compute its layers together; empty where it is one process."""
    windows: tuple[int, ...] = ()
    """Window of each of its layers in tokens, 0 for none, where it returns pages once they have passed; else empty."""
    started_s: float = 0.0
    heard_s: float = 0.0
    """When its last message came."""
    counters: WorkerCounters = field(default_factory=WorkerCounters)
    """Those of its last heartbeat; zeros before the first."""
    reported_s: float | None = None
    """When that heartbeat came."""
    reason: str = ""
    """Why it was lost."""

    @property
    def name(self) -> str:
        """Name of the worker."""
        return self.spec.name

    @property
    def layers(self) -> tuple[int, int]:
        """The layer range [start, end) that it holds."""
        return self.spec.start, self.spec.end
