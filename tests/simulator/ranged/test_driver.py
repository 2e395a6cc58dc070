"""The coordinator in front of the nodes: a queue that grows is reported, and admission has a limit."""

from __future__ import annotations

from helix_kit.simulator import BatchingOptions, simulate
from helix_kit.workload import Workload


def test_overload_ends_and_reports_a_growing_queue(plan):
    run = simulate(plan, Workload.azure_conversation(rate_per_s=60.0, duration_s=60), duration_s=60)
    assert "overload" in run.notes[0]
    assert run.summary()["waiting"] > 1000


def test_no_more_requests_are_served_at_once_than_allowed(plan):
    backlog = Workload.offline(400, seed=1)
    limited = simulate(plan, backlog, mode="offline", options=BatchingOptions(max_in_flight=3), duration_s=100)
    assert sum(r.started_s is not None and r.finished_s is None for r in limited.records) <= 3
