"""A workload served by an engine, reported as a run."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from helix_kit.runtime import Engine, serve  # noqa: E402
from helix_kit.runtime.weights.tiny import tiny_plan  # noqa: E402
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
