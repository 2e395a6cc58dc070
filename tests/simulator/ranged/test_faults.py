"""Faults and changes in the middle of a run: what was lost is done again elsewhere, and the report shows it."""

from __future__ import annotations

import pytest

from helix_kit.errors import InputError
from helix_kit.placement.plan import Plan
from helix_kit.simulator import LinkDegrades, NodeDies, NodeSlows, PlanSwap, SimulationOptions, make_engine, simulate
from helix_kit.workload import Workload

WORKLOAD = Workload.azure_conversation(rate_per_s=0.7, duration_s=120, seed=5)


def run(plan, *faults, **options):
    return simulate(plan, WORKLOAD, faults=faults, duration_s=1500, record_tokens=True, **options)


def busiest(plan):
    return max(plan.placement, key=plan.max_flow.through)


def test_a_dead_node_costs_restarts_but_no_request(plan):
    node = busiest(plan)
    calm, hit = run(plan), run(plan, NodeDies(node, at_s=60.0, detection_s=2.0))
    assert calm.summary()["restarts"] == 0
    victims = [r for r in hit.records if r.restarts]
    assert victims
    assert [r.outcome for r in hit.records] == ["finished"] * len(WORKLOAD)
    for record in hit.records:
        assert len(record.token_times_s) == record.request.output_tokens == record.tokens_generated
        if record.finished_s > 62.0:
            assert node not in [stage.node for stage in record.pipeline]
    for record in victims:
        # What had passed the node when it died may still come back, one token at most.
        assert sum(60.0 < t <= 62.0 for t in record.token_times_s) <= 1
    assert hit.summary()["prompt_latency_s"]["avg"] >= calm.summary()["prompt_latency_s"]["avg"]
    assert hit.nodes[node].busy < calm.nodes[node].busy


def test_the_flow_after_a_loss_is_split_as_the_plans(plan):
    """As the runtime's is: balanced where the plan's is, else the first maximum flow met."""
    alive = {n: span for n, span in plan.placement.items() if n != "A100-40G-1"}
    wanted = {split: plan.problem.max_flow(alive, split=split).edges for split in ("balanced", "any")}
    assert wanted["balanced"] != wanted["any"]
    for split, edges in wanted.items():
        engine = make_engine(
            Plan.from_placement(plan.problem, plan.placement, method="hand", flow_split=split),
            WORKLOAD,
            SimulationOptions(
                mode="online",
                policy="helix",
                execution="range",
                warmup_s=0.0,
                duration_s=5.0,
                seed=0,
                faults=[NodeDies("A100-40G-1", at_s=1.0, detection_s=1.0)],
            ),
        )
        engine.run(5.0, lambda now_s: None, 1.0)
        hops = engine.policy.topology.next_hops
        assert {(a, b): f for a, after in hops.items() for b, f in after} == edges


def test_without_a_pipeline_requests_wait_and_the_report_says_so(plan):
    starts = [n for n, (start, _) in plan.placement.items() if start == 0]
    dead = run(plan, *(NodeDies(n, at_s=30.0) for n in starts))
    summary = dead.summary()
    assert summary["in_flight"] == len(WORKLOAD) - summary["finished"] > 0
    assert "no pipeline is left" in dead.notes[0]


def test_a_slow_node_and_a_poor_link_delay(plan):
    calm = run(plan).summary()
    slow = run(plan, NodeSlows(busiest(plan), at_s=10.0, factor=5.0)).summary()
    assert slow["decode_latency_s"]["avg"] > 1.1 * calm["decode_latency_s"]["avg"]
    source, target = max(
        (edge for edge in plan.flow_edges if "coordinator" not in edge), key=plan.flow_edges.__getitem__
    )
    poor = run(plan, LinkDegrades(source, target, at_s=10.0, bandwidth_factor=0.01, extra_latency_s=0.2)).summary()
    assert poor["prompt_latency_s"]["avg"] > 1.1 * calm["prompt_latency_s"]["avg"]


def test_a_plan_is_swapped_in(plan):
    kept = {n: span for n, span in plan.placement.items() if n.startswith("L4")}
    other = Plan.from_placement(plan.problem, kept, method="hand")
    swapped = run(plan, PlanSwap(other, at_s=60.0, reload_s=10.0))
    assert swapped.summary()["restarts"] > 0
    for record in swapped.records:
        assert record.outcome == "finished"
        assert not any(60.0 < t < 70.0 for t in record.token_times_s), "nothing is served while layers load"
        if record.started_s > 60.0:
            assert all(stage.node in kept for stage in record.pipeline)


def test_faults_of_what_is_not_there_are_refused(plan):
    for fault in (NodeDies("T4-9", 1.0), LinkDegrades("A100-40G-2", "A100-40G-0", 1.0), NodeSlows("L4x2-0", -1.0)):
        with pytest.raises(InputError, match="faults"):
            run(plan, fault)
    with pytest.raises(InputError, match="range"):
        run(plan, NodeSlows("L4x2-0", 1.0), execution="layerwise")
