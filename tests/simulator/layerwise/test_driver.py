"""Offline feeds under the published rules."""

from __future__ import annotations

from helix_kit.simulator import Feed, simulate
from helix_kit.workload import Workload


def test_a_fixed_number_of_requests_is_in_flight(plan):
    backlog = Workload.offline(400, seed=1)
    fixed = simulate(plan, backlog, mode="offline", policy="swarm", execution="layerwise", feed=Feed(7, kv_mark=None))
    starts = sorted(
        [(r.started_s, 1) for r in fixed.records] + [(r.finished_s, -1) for r in fixed.records if r.finished_s]
    )
    level = peak = 0
    for _, step in starts:
        level += step
        peak = max(peak, level)
    assert peak <= 7
    assert fixed.summary()["in_flight"] <= 7
