"""What a launcher does, and what it returns: the contract of the modules in this folder."""

from __future__ import annotations

from typing import Protocol

from helix_kit.runtime.spec import WorkerSpec


class WorkerProcess(Protocol):
    """A worker that has been started: a thread, a process or a Ray actor."""

    def is_alive(self) -> bool:
        """Whether it still runs."""
        ...

    def is_stopped(self) -> bool | None:
        """Whether the system has stopped it, so that it gets no time at all; None where that cannot be seen."""
        ...

    def kill(self) -> None:
        """End it at once; may be called twice."""
        ...


class Launcher(Protocol):
    """Starts workers, and ends all of them."""

    def start(self, spec: WorkerSpec) -> WorkerProcess:
        """Start a worker and return at once."""
        ...

    def close(self) -> None:
        """End all workers, and every process that was started in order to start them."""
        ...

    @property
    def host(self) -> str:
        """Address of this machine that the workers can reach."""
        ...
