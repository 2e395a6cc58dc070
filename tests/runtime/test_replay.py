"""A workload served by an engine, reported as a run."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from helix_kit.errors import InputError  # noqa: E402
from helix_kit.runtime import Engine, serve  # noqa: E402
from helix_kit.runtime.replay import ReplayOptions  # noqa: E402
from helix_kit.runtime.weights.tiny import tiny_plan  # noqa: E402
from helix_kit.simulator import BatchingOptions, simulate  # noqa: E402
from helix_kit.workload.workload import Workload  # noqa: E402


def test_replay_reports_a_run(engine: Engine) -> None:
    workload = Workload.of([(0.0, 5, 4), (0.1, 20, 3), (0.15, 9, 6)], "test")
    run = engine.replay(workload)
    summary = run.summary()
    assert [r.request for r in run.records] == list(workload)
    assert summary["finished"] == 3 and summary["measured"]
    assert [r.tokens_generated for r in run.records] == [4, 3, 6]
    assert len(run.latencies("prompt")) == 3 and len(run.latencies("decode")) == 3 + 2 + 5
    assert all(r.first_token_s > r.request.arrival_s for r in run.records)
    assert summary["coordinator_cpu_ms_per_token"] > 0


def test_replay_can_be_cut_short(tiny_llama: Path) -> None:
    plan = tiny_plan(tiny_llama, {"a": (0, 6)}, step_ms=10.0)
    with serve(plan, tiny_llama, launcher="inproc", pace=True) as engine:
        run = engine.replay(Workload.of([(0.0, 5, 400), (0.1, 5, 4), (9.0, 5, 4)]), max_seconds=4.0)
    assert [r.outcome for r in run.records] == ["in_flight", "finished", "in_flight"]
    assert run.partial and run.window == (0.0, 4.0)


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_a_replay_that_is_stopped_keeps_what_was_served(tiny_llama: Path, mode: str) -> None:
    plan, stop = tiny_plan(tiny_llama, {"a": (0, 6)}, step_ms=10.0), threading.Event()
    rows = [(0.0, 5, 3), (0.1, 5, 400), (600.0, 5, 4)]
    with serve(plan, tiny_llama, launcher="inproc", pace=True) as engine:
        run = engine.replay(
            Workload.of(rows), mode=mode, max_seconds=900.0, stop=stop,
            progress=lambda done, of: stop.set() if done else None,
        )  # fmt: skip
    assert run.partial and run.records[0].outcome == "finished" and run.records[1].outcome == "in_flight"
    assert len(run.latencies("decode")) >= 2 and 0 < run.window[1] < 60


def test_a_backlog_keeps_the_workers_full_until_the_end(tiny_llama: Path) -> None:
    """One node with KV pages for four requests, 60 ms a step: as many run at once, and the others wait unseen."""
    plan = tiny_plan(tiny_llama, {"a": (0, 6)}, step_ms=10.0, kv_tokens_per_layer=64)
    workload = Workload.of([(0.0, 5, 8)] * 500, "backlog")
    with serve(plan, tiny_llama, launcher="inproc", pace=True) as engine:
        run = engine.replay(workload, mode="offline", window=(1.0, 3.0))
        assert engine.status().waiting == 0
    summary = run.summary()
    assert run.window == (1.0, 3.0) and summary["mode"] == "offline" and "ran_dry_s" not in summary
    assert summary["peak_concurrency"] == 4
    # Of the 64 that waited at the coordinator only those that were taken up have records; they arrived at that moment.
    assert all(r.started_s == r.request.arrival_s for r in run.records)
    # Four run when the replay ends; on a busy machine four more have just ended, after the window.
    assert 4 < summary["finished"] < len(run.records) <= summary["finished"] + 8
    assert max(r.first_token_s - r.started_s for r in run.records if r.first_token_s) < 0.5


def test_a_backlog_with_a_limit_that_ends_early_says_so(tiny_llama: Path) -> None:
    plan = tiny_plan(tiny_llama, {"a": (0, 6)}, step_ms=2.0)
    with serve(plan, tiny_llama, launcher="inproc", pace=True) as engine:
        run = engine.replay(Workload.of([(0.0, 5, 8)] * 6), mode="offline", window=(0.0, 20.0), max_in_flight=2)
    summary = run.summary()
    assert summary["finished"] == 6 and summary["peak_concurrency"] == 2 and not run.partial
    # Three rounds of two; the last two are taken up when two rounds are over.
    assert 0 < summary["ran_dry_s"] < max(r.finished_s for r in run.records) and run.window == (0.0, 20.0)


def test_a_request_of_a_backlog_follows_as_soon_as_another_ends(tiny_llama: Path) -> None:
    """Two at once: beside one long request the short ones are served one after another, as in the simulation."""
    plan = tiny_plan(tiny_llama, {"a": (0, 6)}, step_ms=5.0)
    workload = Workload.of([(0.0, 5, 60), *[(0.0, 5, 8)] * 40], "backlog")
    with serve(plan, tiny_llama, launcher="inproc", pace=True) as engine:
        run = engine.replay(workload, mode="offline", window=(0.0, 2.5), max_in_flight=2)
    simulated = simulate(
        plan, workload, mode="offline", warmup_s=0.0, duration_s=2.5, options=BatchingOptions(max_in_flight=2)
    )
    beside, expected = (
        sum(r.started_s is not None and r.started_s < found.records[0].finished_s for r in found.records[1:])
        for found in (run, simulated)
    )
    assert beside > 4 and abs(beside - expected) <= 2 and run.summary()["peak_concurrency"] == 2


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"mode": "offline"}, "window"),
        ({"mode": "both"}, "mode"),
        ({"window": (5.0, 5.0)}, "window"),
        ({"mode": "offline", "max_seconds": 1.0, "max_in_flight": 0}, "max_in_flight"),
    ],
)
def test_wrong_options_are_named(options: dict, field: str) -> None:
    with pytest.raises(InputError, match=field):
        ReplayOptions(**options)


def test_requests_longer_than_the_context_are_refused_before_the_replay(engine: Engine) -> None:
    workload = Workload.of([(0.0, 5, 4), (0.1, 500, 13), (0.2, 400, 200)], "long")
    tokens = engine.status().tokens_out
    with pytest.raises(InputError, match=r"long: 2 of 3 requests do not fit .* of 512 tokens; the longest has 400 in"):
        engine.replay(workload)
    assert engine.status().tokens_out == tokens
    assert engine.replay(workload.shortened(100, 5)).summary()["finished"] == 3


def test_an_error_of_a_replay_is_told_also_when_the_engine_was_closed_meanwhile(tiny_llama: Path) -> None:
    class BrokenError(Exception):
        pass

    engine = serve(tiny_plan(tiny_llama, {"a": (0, 6)}), tiny_llama, launcher="inproc")

    def close_and_fail(done: int, of: int) -> None:
        engine.close()
        raise BrokenError

    with engine, pytest.raises(BrokenError):
        engine.replay(Workload.of([(0.0, 5, 3), (60.0, 5, 3)]), progress=close_and_fail)


@pytest.mark.parametrize("kv_pages", [150, 2000])
def test_served_and_simulated_requests_find_the_same(tiny_llama: Path, kv_pages: int) -> None:
    """Conversations, one request at a time. With 150 pages a worker forgets some of them."""
    plan = tiny_plan(tiny_llama, {"a": (0, 4), "b": (2, 6), "c": (0, 3), "d": (3, 6)})
    talks = Workload.conversations(
        1.0, 20.0, turns=3, system_tokens=40, question_tokens=20, output_tokens=12, think_s=10.0, seed=1
    ).limited(max_input=300)[:20]
    with serve(plan, tiny_llama, launcher="inproc", policy="prefix", pace=False, kv_pages=kv_pages) as engine:
        served = [
            engine.replay(talks, mode="offline", window=(0.0, 60.0), max_in_flight=1)
            for _ in range(2)  # each replay begins with empty caches
        ][-1]
    simulated = simulate(
        plan,
        talks,
        mode="offline",
        policy="prefix",
        kv_capacity=dict.fromkeys(plan.placement, 16 * kv_pages),
        options=BatchingOptions(max_in_flight=1),
    )
    found = [r.cached_tokens for r in served.records]
    assert found == [r.cached_tokens for r in simulated.records] and sum(found) > 100
    assert served.prefix_hit_rate == simulated.prefix_hit_rate == served.summary()["prefix_hit_rate"]
