"""Workers that are started, lost, restarted and exchanged, without processes: time is moved by the tests."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("torch")

from helix_kit.errors import HelixKitError
from helix_kit.flow import Stage
from helix_kit.runtime.coordinator import worker_manager
from helix_kit.runtime.transport.messages import (
    FailedMessage,
    ForgetMessage,
    HeartbeatMessage,
    StartingMessage,
    StopMessage,
    WorkerCounters,
)
from helix_kit.runtime.weights.tiny import tiny_plan

PLACEMENT = {"a": (0, 4), "b": (2, 6)}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """`now_s` is the time that the manager reads."""
    now = SimpleNamespace(now_s=1000.0)
    monkeypatch.setattr(worker_manager, "time", SimpleNamespace(monotonic=lambda: now.now_s))
    return now


def beat(scene, name: str, **counters: int) -> None:
    spec = scene.manager.records[name].spec
    scene.manager.receive(HeartbeatMessage(name, spec.generation, WorkerCounters(**counters), {}))


def wait(scene, clock, seconds: float, *beating: str) -> None:
    """Let time pass in steps shorter than a stall, with heartbeats of these workers."""
    for _ in range(round(seconds / 0.25)):
        clock.now_s += 0.25
        for name in beating:
            beat(scene, name)
        scene.manager.check()


def test_ready_is_set_when_the_last_worker_is_up(scene_of) -> None:
    scene = scene_of(PLACEMENT, up=False)
    assert scene.manager.is_starting and not scene.manager.is_alive("a")
    assert {(spec.coordinator, spec.heartbeats) for spec in scene.launcher.started} == {
        ("tcp://here:1", "tcp://here:2")
    }
    scene.ready("a", pages=10)
    assert scene.manager.is_alive("a") and not scene.manager.ready.is_set() and scene.events.told == []
    scene.ready("b")
    assert scene.manager.ready.is_set() and scene.events.told == [("changed",)]
    assert scene.manager.failed_start is None and scene.manager.ledger.free("a") == 10


def test_how_far_a_start_is(scene_of) -> None:
    scene = scene_of(PLACEMENT, up=False)
    assert scene.manager.start_progress == "0 of 2 workers are up"
    generation = scene.manager.records["b"].spec.generation
    scene.manager.receive(StartingMessage("b", generation, "10 of 57 CUDA graphs captured"))
    scene.manager.receive(StartingMessage("b", generation + 9, "of another start"))
    scene.ready("a")
    assert scene.manager.start_progress == "1 of 2 workers are up; b: 10 of 57 CUDA graphs captured"
    scene.ready("b")
    assert scene.manager.start_progress == "2 of 2 workers are up"
    assert scene.manager.records["b"].description == "attention of b"


def test_a_failed_start_says_why(scene_of, clock) -> None:
    scene = scene_of(PLACEMENT, up=False)
    spec = scene.launcher.started[1]
    scene.manager.receive(FailedMessage("b", spec.generation, "no such tensor"))
    assert scene.manager.ready.is_set() and scene.manager.failed_start == "worker b: no such tensor"
    slow = scene_of(PLACEMENT, up=False)
    wait(slow, clock, 10.5)
    assert slow.manager.failed_start == "worker a: not ready within 10 s"


def test_silence_counts_as_loss_and_the_others_are_told(scene_of, clock) -> None:
    scene = scene_of(PLACEMENT)
    wait(scene, clock, 1.75, "a")
    assert scene.manager.is_alive("b")
    wait(scene, clock, 1.0, "a")
    assert scene.manager.is_alive("a") and not scene.manager.is_alive("b")
    [loss] = scene.manager.losses
    assert (loss.time_s, loss.worker) == (42.0, "b") and loss.reason.startswith("no heartbeat for 2.")
    assert scene.manager.lost_reasons == f"b ({loss.reason})"
    endpoints = {spec.name: f"tcp://{spec.name}:{spec.generation}" for spec in scene.launcher.started}
    assert scene.outbox.forgotten == [endpoints["b"]]
    assert scene.outbox.sent == [(endpoints["a"], ForgetMessage(endpoints["b"]))]
    assert scene.events.told[1:] == [("gone", "b", True), ("changed",)]
    assert scene.manager.ledger.free("b") == 0


@pytest.mark.parametrize(("stopped", "after_s"), [(True, 2.0), (None, 2.0), (False, 6.0)])
def test_a_process_that_is_seen_to_run_is_waited_for_three_times_as_long(scene_of, clock, stopped, after_s) -> None:
    scene = scene_of(PLACEMENT)
    scene.manager.records["b"].process.stopped = stopped
    wait(scene, clock, after_s, "a")
    assert scene.manager.is_alive("b")
    wait(scene, clock, 0.5, "a")
    assert not scene.manager.is_alive("b")
    told = {True: ": its process is stopped", False: ", though its process runs", None: ""}[stopped]
    assert scene.manager.losses[0].reason == f"no heartbeat for {after_s + 0.25:.1f} s{told}"


def test_a_starved_worker_that_is_heard_again_is_kept(scene_of, clock) -> None:
    scene = scene_of(PLACEMENT)
    scene.manager.records["b"].process.stopped = False
    wait(scene, clock, 5.5, "a")
    beat(scene, "b")
    wait(scene, clock, 5.5, "a")
    assert scene.manager.is_alive("b") and scene.manager.losses == []


def test_a_stall_of_this_process_is_not_the_workers_silence(scene_of, clock) -> None:
    scene = scene_of(PLACEMENT)
    clock.now_s += 60.0
    scene.manager.check()
    assert scene.manager.losses == []
    wait(scene, clock, 2.25, "a")
    assert [loss.worker for loss in scene.manager.losses] == ["b"]


def test_a_restarted_worker_is_told_from_the_lost_one(scene_of) -> None:
    scene = scene_of(PLACEMENT)
    lost = scene.manager.records["b"]
    lost.process.kill()
    scene.manager.check()
    scene.manager.restart("b")
    scene.manager.restart("a")  # it is up: nothing happens
    assert [spec.name for spec in scene.launcher.started] == ["a", "b", "b"]
    late = HeartbeatMessage("b", lost.spec.generation, WorkerCounters(steps=5), {})
    assert scene.manager.receive(late) is None
    assert scene.manager.records["b"].counters.steps == 0 and scene.manager.records["b"].reported_s is None
    scene.ready("b")
    beat(scene, "b", steps=1)
    assert scene.manager.is_alive("b") and scene.manager.records["b"].counters.steps == 1


def test_lost_workers_are_restarted_when_asked_for(scene_of) -> None:
    scene = scene_of(PLACEMENT, restart=True, devices={"b": ["cpu", "cpu"]})
    scene.manager.records["b/1"].process.kill()
    scene.manager.check()
    assert [spec.name for spec in scene.launcher.started] == ["a", "b/0", "b/1", "b/1"]
    assert not scene.manager.is_alive("b") and scene.manager.is_starting
    scene.ready("b/1")
    assert scene.manager.is_alive("b")


def test_pages_are_asked_of_the_workers_that_hold_the_last_layers(scene_of) -> None:
    """b holds [2, 6) on two workers, [2, 4) and [4, 6), of which the first has few pages."""
    scene = scene_of(PLACEMENT, up=False, devices={"b": ["cpu", "cpu"]})
    for name, pages in (("a", 40), ("b/0", 2), ("b/1", 8)):
        scene.ready(name, pages=pages)
    has_pages = scene.manager.has_pages
    assert has_pages("b", 64, 2) and not has_pages("b", 65, 2)  # 4 pages in each of 2 layers are 8
    assert has_pages("b", 16, 4) and not has_pages("b", 17, 4)  # one page in each layer of b/0 are 2
    assert not has_pages("c", 1, 1)
    assert scene.manager.ledger.promise(1, 0, 64, (Stage("b/1", 4, 6),)) == {"b/1": []}
    assert not has_pages("b", 16, 2) and has_pages("b", 64, 2, when_empty=True)


def test_a_swap_takes_over_when_its_new_workers_are_up(scene_of, tiny_llama: Path) -> None:
    scene, results = scene_of(PLACEMENT), []
    scene.events.told.clear()
    other = tiny_plan(tiny_llama, {"a": (0, 2), "b": (2, 6)})
    old = scene.manager.records["a"]
    scene.manager.swap(other, results.append)
    assert [spec.name for spec in scene.launcher.started] == ["a", "b", "a"] and results == []
    assert scene.manager.records["a"] is old and scene.manager.plan is not other
    scene.manager.swap(other, results.append)
    assert "another plan is being put in place" in str(results.pop())
    scene.ready("a", pages=400)
    assert results == [None] and scene.manager.plan is other
    assert scene.manager.records["a"].layers == (0, 2) and not old.process.is_alive()
    assert scene.manager.ledger.free("a") == 400 and scene.manager.losses == []
    assert scene.events.told == [("gone", "a", False), ("plan", dict(other.placement)), ("changed",)]


@pytest.mark.parametrize("trouble", ["failed", "ended", "pages", "closed"])
def test_a_swap_that_fails_leaves_the_old_plan(scene_of, tiny_llama: Path, trouble: str) -> None:
    scene, results = scene_of(PLACEMENT), []
    scene.events.told.clear()
    old = scene.manager.plan
    scene.manager.swap(tiny_plan(tiny_llama, {"a": (0, 2), "b": (2, 6)}), results.append)
    spec = scene.launcher.started[-1]
    if trouble == "failed":
        scene.manager.receive(FailedMessage("a", spec.generation, "out of memory"))
        message = "worker a: out of memory"
    elif trouble == "ended":
        scene.manager._swap.incoming["a"].process.kill()
        scene.manager.check()
        message = "worker a: its process ended"
    elif trouble == "pages":
        scene.ready("a", pages=spec.num_pages // 2 - 1)
        message = f"worker a: only {spec.num_pages // 2 - 1} of its {spec.num_pages} KV pages fit"
    else:
        scene.manager.close()
        message = "the engine was closed"
    [error] = results
    assert isinstance(error, HelixKitError) and message in str(error)
    assert scene.manager.plan is old and scene.manager.is_alive("a") and scene.events.told == []


def test_closing_tells_the_workers_that_are_up(scene_of) -> None:
    scene = scene_of(PLACEMENT, up=False)
    scene.ready("b")
    scene.manager.close()
    assert [message for _, message in scene.outbox.sent] == [StopMessage()] and scene.launcher.is_closed
