"""Invariant 1: every request issued is finished, rejected with a reason, or in flight: none is lost or doubled."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from simulated import cases, make_plan

from helix_kit.simulator import simulate
from helix_kit.workload import Workload


def check(run, workload, first_token_counts):
    assert sorted(r.request.id for r in run.records) == [r.id for r in workload]
    for record in run.records:
        if record.outcome == "finished":
            assert record.tokens_generated == record.request.output_tokens
            assert len(record.token_times_s) == record.request.output_tokens + (0 if first_token_counts else 1)
            assert record.started_s <= record.first_token_s <= record.finished_s == record.token_times_s[-1]
        elif record.outcome == "rejected":
            assert record.reason and not record.token_times_s
        else:
            assert record.outcome == "in_flight" and record.finished_s is None
            assert record.tokens_generated < record.request.output_tokens or not first_token_counts
    summary = run.summary()
    assert summary["finished"] + summary["rejected"] + summary["in_flight"] == len(workload)


@settings(max_examples=120)
@given(cases())
def test_range_execution_with_faults(case):
    run = simulate(
        case.plan, case.workload, mode=case.mode, policy=case.policy, seed=case.seed, faults=case.faults, warmup_s=0,
        duration_s=400, record_tokens=True,
    )  # fmt: skip
    check(run, case.workload, True)
    if not case.faults:
        assert run.summary()["in_flight"] == 0


@settings(max_examples=60)
@given(cases(faults=False))
def test_layerwise_execution(case):
    run = simulate(
        case.plan, case.workload, mode="online", policy=case.policy, seed=case.seed, execution="layerwise", warmup_s=0,
        duration_s=600, record_tokens=True,
    )  # fmt: skip
    check(run, case.workload, False)


@pytest.mark.parametrize("duration", [1.0, 5.0, 20.0])
def test_a_run_cut_short_keeps_its_requests_in_flight(duration):
    plan = make_plan(((0, 4), (4, 8)), ("T4", "T4"), True)
    workload = Workload.of([(0.2 * i, 1000, 500) for i in range(30)])
    for execution in ("range", "layerwise"):
        run = simulate(plan, workload, execution=execution, duration_s=duration)
        assert len(run.records) == sum(r.arrival_s < duration for r in workload)
        assert run.summary()["in_flight"] > 0
