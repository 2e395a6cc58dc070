"""What is drawn of a plan: merged machines keep all nodes and all flow."""

from __future__ import annotations

import pytest

from helix_kit import Cluster, Model, Plan, Problem
from helix_kit.plots import flow_graph
from helix_kit.plots.machines import capacity_by_layer, machines_and_streams


def test_three_hundred_machines_are_merged_without_losing_flow():
    cluster = Cluster.model_validate({"name": "many", "nodes": [{"gpu": "L4", "count": 300}]})
    problem = Problem.of(cluster, Model.preset("llama2-70b"))
    placement = {f"L4-{i}": (4 * (i % 20), 4 * (i % 20) + 4) for i in range(300)}
    plan = Plan.from_placement(problem, placement, method="hand")
    machines, streams = machines_and_streams(plan)
    assert len(machines) == 20 and sorted(n for m in machines for n in m.nodes) == sorted(placement)
    for machine in machines:
        into = sum(s.flow for s in streams if s.target == machine.id)
        assert into == pytest.approx(plan.flow_tokens_per_s) == machine.flow
    assert len(machines_and_streams(plan, merge=False)[0]) == 300
    assert flow_graph(plan).scene.height < 500


def test_streams_say_where_they_enter_and_what_they_cross(overlapping_plan, regions_plan):
    _, streams = machines_and_streams(overlapping_plan)
    partial = [(s.source, s.target, s.layer) for s in streams if s.partial]
    assert partial == [("V100-16G-0", "A10G-0", 18)]
    _, streams = machines_and_streams(regions_plan)
    # One chain: it crosses to the far region, and comes back to the coordinator from there.
    assert [(s.source, s.target) for s in streams if s.crosses_regions] == [
        ("A100-40G-3", "L4-0"),
        ("L4-5", "coordinator"),
    ]


def test_capacity_of_a_layer_is_that_of_the_machines_that_hold_it(regions_plan):
    by_layer = capacity_by_layer(regions_plan)
    assert len(by_layer) == 80
    assert by_layer[0] == regions_plan.node_throughput_tokens_per_s["A100-40G-0"]
    assert by_layer[79] == regions_plan.node_throughput_tokens_per_s["L4-5"]
