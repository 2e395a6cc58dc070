"""The coordinator in front of the nodes: a queue that grows is reported, and admission has a limit."""

from __future__ import annotations

from collections import Counter

import pytest

from helix_kit.scheduling import Policy
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


ROOM_FOR_TWO = 44 * 16
"""Tokens a layer: two requests of 300 + 20 tokens take 20 pages each."""


@pytest.mark.parametrize("policy", ["helix", "random", "swarm", "shortest_queue"])
def test_requests_without_free_pages_wait_and_are_served_later(plan, policy):
    """Baselines return a pipeline whether or not its pages are free: the coordinator refuses it, and asks again."""
    room = {node: ROOM_FOR_TWO * (end - start) for node, (start, end) in plan.placement.items()}
    run = simulate(plan, Workload.of([(0.0, 300, 20)] * 12), policy=policy, kv_capacity=room, duration_s=400)
    assert [r.outcome for r in run.records] == ["finished"] * 12
    assert all(use.kv_peak <= use.kv_capacity for use in run.nodes.values())
    starts = sorted(r.started_s for r in run.records)
    assert starts[0] == 0.0 and starts[-1] > 0.0


def test_a_request_that_the_policy_never_routes_is_rejected(plan):
    class OddOnes(Policy):
        def route(self, request, view):
            return plan.pipelines[0][0] if request.id % 2 else None

    run = simulate(plan, Workload.of([(0.0, 50, 3)] * 6), policy=OddOnes(), duration_s=60)
    assert [r.outcome for r in run.records] == ["rejected", "finished"] * 3
    assert "no pipeline for it in an empty cluster" in run.records[0].reason


def test_prompts_of_more_chunks_than_the_pool_has_at_first(plan):
    """4,096 chunks at first; chunks of one token make 6,000."""
    run = simulate(
        plan, Workload.of([(0.0, 6000, 3)]), options=BatchingOptions(step_tokens=512, chunk_tokens=1), duration_s=6000
    )
    assert run.records[0].outcome == "finished"
    assert sum(use.prefill_tokens for use in run.nodes.values()) == 6000 * len(run.records[0].pipeline)


def test_thousands_of_requests_may_start_in_one_moment(plan):
    """Each sends a message at once, more than the pool has at first; none may be lost."""
    room = dict.fromkeys(plan.placement, 10_000_000)
    workload = Workload.of([(0.0, 10, 2)] * 3000)
    run = simulate(plan, workload, duration_s=600, warmup_s=0, kv_capacity=room)
    assert Counter(record.outcome for record in run.records) == {"finished": 3000}


def test_swarm_learns_hop_times_while_it_runs(plan):
    """An A100 is many times as fast as two L4 behind a slow link."""
    workload = Workload.poisson(rate_per_s=3.0, duration_s=40, input_tokens=200, output_tokens=10, seed=1)
    run = simulate(plan, workload, policy="swarm", duration_s=400)
    first = Counter(record.pipeline[0].node for record in run.records)
    assert first["A100-40G-0"] > 2 * first["L4x2-0"] > 0
