"""The workers as the coordinator sees them: which are up, when each was last heard of, and what they report."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

from helix_kit.runtime.spec import WorkerSpec
from helix_kit.runtime.transport.messages import WorkerCounters

State = Literal["starting", "up", "lost"]


class WorkerProcess(Protocol):
    """A started worker, whatever it runs in."""

    def is_alive(self) -> bool:
        """Whether it still runs."""
        ...

    def kill(self) -> None:
        """End it at once; safe to call twice."""
        ...


class Launcher(Protocol):
    """Starts workers; see `helix_kit.runtime.launch`."""

    def start(self, spec: WorkerSpec) -> WorkerProcess:
        """Start a worker and return at once."""
        ...

    def close(self) -> None:
        """End all workers and whatever helps to start them."""
        ...

    @property
    def host(self) -> str:
        """Address of this machine that the workers can reach."""
        ...


@dataclass(slots=True)
class Member:
    """One node's worker."""

    spec: WorkerSpec
    process: WorkerProcess
    state: State = "starting"
    endpoint: str = ""
    pages: int = 0
    pid: int | None = None
    started_s: float = 0.0
    heard_s: float = 0.0
    counters: WorkerCounters = field(default_factory=WorkerCounters)
    """From its last heartbeat; zeros before the first one."""
    reported_s: float | None = None
    """When it did."""
    reason: str = ""

    @property
    def node(self) -> str:
        """Name of the node."""
        return self.spec.node
