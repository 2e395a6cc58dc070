"""A worker manager without processes and sockets: workers that start and end when a test says so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from helix_kit.runtime.weights.tiny import tiny_plan


class FakeProcess:
    """A worker that runs until it is killed."""

    def __init__(self) -> None:
        self.is_running = True
        self.stopped: bool | None = None
        """What the system says of it."""

    def is_alive(self) -> bool:
        return self.is_running

    def is_stopped(self) -> bool | None:
        return self.stopped

    def kill(self) -> None:
        self.is_running = False


@dataclass
class FakeLauncher:
    """Starts fake workers."""

    host = "127.0.0.1"
    started: list[Any] = field(default_factory=list)
    """Their specs."""
    is_closed: bool = False

    def start(self, spec: Any) -> FakeProcess:
        self.started.append(spec)
        return FakeProcess()

    def close(self) -> None:
        self.is_closed = True


@dataclass
class FakeOutbox:
    """Keeps what is sent."""

    sent: list[tuple[str, Any]] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)

    def send(self, endpoint: str, message: Any) -> None:
        self.sent.append((endpoint, message))

    def forget(self, endpoint: str) -> None:
        self.forgotten.append(endpoint)

    def flush_and_close(self) -> None:
        pass


@dataclass
class FakeEvents:
    """Keeps what the manager tells the coordinator."""

    told: list[tuple[Any, ...]] = field(default_factory=list)

    def now_s(self) -> float:
        return 42.0

    def on_worker_gone(self, worker: str, was_lost: bool) -> None:
        self.told.append(("gone", worker, was_lost))

    def on_workers_changed(self) -> None:
        self.told.append(("changed",))

    def on_plan_changed(self, plan: Any) -> None:
        self.told.append(("plan", dict(plan.placement)))


@dataclass
class Scene:
    """A manager, and the fakes around it."""

    manager: Any
    launcher: FakeLauncher
    outbox: FakeOutbox
    events: FakeEvents

    def ready(self, name: str, *, pages: int = 64) -> None:
        """The worker reports that it is up."""
        from helix_kit.runtime.transport.messages import ReadyMessage

        spec = [spec for spec in self.launcher.started if spec.name == name][-1]
        endpoint = f"tcp://{name}:{spec.generation}"
        self.manager.receive(
            ReadyMessage(name, spec.generation, endpoint, pages, 99, description=f"attention of {name}")
        )


@pytest.fixture
def scene_of(tiny_llama: Path) -> Callable[..., Scene]:
    """Makes the scene for a placement; with `up`, all workers have reported."""
    pytest.importorskip("torch")
    from helix_kit.runtime import ServeOptions, Timeouts
    from helix_kit.runtime.coordinator.worker_manager import WorkerManager
    from helix_kit.runtime.worker_factory import WorkerFactory

    def make(placement: dict[str, tuple[int, int]], *, up: bool = True, restart: bool = False, **options: Any) -> Scene:
        plan = tiny_plan(tiny_llama, placement)
        launcher, outbox, events = FakeLauncher(), FakeOutbox(), FakeEvents()
        factory = WorkerFactory(plan, ServeOptions(launcher=launcher, **options), tiny_llama, "llama")
        timeouts = Timeouts(start_s=10.0, silence_s=2.0)
        manager = WorkerManager(
            plan, factory, ("tcp://here:1", "tcp://here:2"), outbox, events, timeouts=timeouts, restart_workers=restart
        )
        scene = Scene(manager, launcher, outbox, events)
        manager.start_all()
        if up:
            for spec in list(launcher.started):
                scene.ready(spec.name)
        return scene

    return make
