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


def test_online_requests_wait_for_room_and_are_served_later(plan):
    """Helix's policy expects 300 + 144 tokens a layer: nodes of 20 layers with 27,000 layer-tokens take two."""
    workload = Workload.of([(0.0, 300, 20)] * 12)
    options = {"execution": "layerwise", "duration_s": 400}
    room = {node: 1350 * (end - start) for node, (start, end) in plan.placement.items()}
    crowded, roomy = simulate(plan, workload, kv_capacity=room, **options), simulate(plan, workload, **options)
    assert [r.outcome for r in crowded.records] == [r.outcome for r in roomy.records] == ["finished"] * 12
    first = [max(r.first_token_s for r in run.records) for run in (crowded, roomy)]
    assert first[0] > 2 * first[1]
    served = [(r.first_token_s, r.finished_s) for r in crowded.records]
    for moment, _ in served:
        assert sum(start <= moment < end for start, end in served) <= 4  # two on each of two first nodes


def test_a_cache_that_overflows_is_told(plan):
    """Random scheduling refuses no request, as published."""
    workload = Workload.of([(0.0, 300, 20)] * 12)
    room = {node: 1350 * (end - start) for node, (start, end) in plan.placement.items()}
    run = simulate(plan, workload, policy="random", execution="layerwise", kv_capacity=room, duration_s=400)
    (note,) = run.notes
    assert "KV cache overflowed on" in note
    over = {name for name, use in run.nodes.items() if use.kv_peak > use.kv_capacity}
    assert over == {name for name in plan.placement if name in note.replace(",", " ").split()} != set()


def test_runs_longer_than_the_first_room_for_tokens(plan):
    """The log has room for 16,384 tokens at first, and two for each request."""
    run = simulate(plan, Workload.of([(0.0, 100, 3000)] * 8), execution="layerwise", duration_s=4000)
    assert [r.tokens_generated for r in run.records] == [3000] * 8
    assert len(run.tokens.time_s) > 16_384 + 16
