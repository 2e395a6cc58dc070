"""The report of a run: what its parts say is what its batches, tokens and samples add up to."""

from __future__ import annotations

import pytest

from helix_kit.simulator import simulate
from helix_kit.workload import Workload

WORKLOAD = Workload.poisson(rate_per_s=1.0, duration_s=60, input_tokens=300, output_tokens=20, seed=0)


@pytest.fixture(scope="module", params=["range", "layerwise"])
def run(request, plan):
    return simulate(plan, WORKLOAD, execution=request.param, warmup_s=10, duration_s=40, record_batches=True,
                    record_tokens=True)  # fmt: skip


def test_a_nodes_busy_time_is_that_of_its_batches_within_the_window(run):
    start, end = run.window
    for name, use in run.nodes.items():
        batches = [b for b in run.batches if b.node == name]
        within = sum(max(0.0, min(b.end_s, end) - max(b.start_s, start)) for b in batches)
        # A step that still runs at the end has no batch: its time is in neither sum.
        assert use.busy == pytest.approx(within / (end - start), abs=1e-9)
        assert use.steps == sum(start <= b.end_s <= end for b in batches)
        assert use.busy + use.blocked + use.starved == pytest.approx(1.0)
        assert use.kv_peak <= use.kv_capacity and 0 <= use.kv_mean <= use.kv_peak


def test_a_request_has_the_tokens_that_came_back_for_it(run):
    by_request = {}
    for request, time_s in zip(run.tokens.request, run.tokens.time_s, strict=True):
        by_request.setdefault(int(request), []).append(float(time_s))
    for number, record in enumerate(run.records):
        assert record.token_times_s == by_request.get(number, [])
        assert record.first_token_s == (by_request[number][0] if number in by_request else None)
        assert (record.finished_s is not None) == (record.outcome == "finished")


def test_a_link_carries_no_more_than_its_bandwidth(run, plan):
    start, end = run.window
    for use in run.links:
        full = plan.cluster.link(use.source, use.target).bytes_per_s * (end - start)
        assert 0 <= use.bytes_sent <= full * (1 + 1e-9)
        assert 0 <= use.busy <= 1 + 1e-9
