"""Invariant 4: a pipeline covers layers 0..L once, in order, on nodes that hold them."""

from __future__ import annotations

from hypothesis import given, settings
from simulated import LAYERS, cases

from helix_kit.simulator import simulate


@settings(max_examples=80)
@given(cases())
def test_every_request_took_a_pipeline(case):
    for execution in ("range", "layerwise"):
        run = simulate(
            case.plan, case.workload, policy=case.policy, seed=case.seed, execution=execution, duration_s=300,
            faults=case.faults if execution == "range" else (),
        )  # fmt: skip
        for record in run.records:
            if record.outcome == "finished":
                assert record.pipeline
            done = 0
            for stage in record.pipeline or ():
                start, end = case.plan.placement[stage.node]
                assert start <= stage.start == done < stage.end == end
                done = stage.end
            if record.pipeline:
                assert done == LAYERS


@settings(max_examples=40)
@given(cases(faults=False))
def test_only_nodes_of_pipelines_work(case):
    run = simulate(case.plan, case.workload, policy=case.policy, seed=case.seed, duration_s=300)
    used = {stage.node for record in run.records for stage in record.pipeline or ()}
    assert {name for name, use in run.nodes.items() if use.steps} == used
