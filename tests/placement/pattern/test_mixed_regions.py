"""Stages spread over regions, fitted to the links by simulated annealing."""

import random

import numpy as np
import pytest
from independent_flow import independent_flow

import helix_kit as hk
from helix_kit.placement import Problem
from helix_kit.placement.groups import Group
from helix_kit.placement.pattern.mixed_regions import array_flows, fit_to_links
from helix_kit.placement.pattern.stages import PatternStage
from helix_kit.placement.watch import Watch


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["highs", "glpk"])
def test_geo24_30b(solver):
    """Chains of regions reach 1419.9 tokens/s. Stages spread over regions reach what a single region would."""
    plan = hk.plan("geo24", "llama-30b", solver=solver, time_limit_s=60)
    assert plan.flow_tokens_per_s >= 1517
    assert plan.gap <= 1e-3
    assert independent_flow(plan) == pytest.approx(plan.flow_tokens_per_s, rel=1e-6)


def test_annealing_finds_the_nodes_that_the_links_join():
    """Links between regions carry 8 tokens/s, or all token ids: each way begins and ends anywhere, and must not cross.

    The group lists the nodes such that each stage has those of one region, so its flow needs a swap.
    """
    nodes = [{"gpu": "A100-40G", "count": 2, "region": r} for r in ("east", "west")]
    network = {"within_region": {"bandwidth_gbps": 10}, "between_regions": {"bandwidth_gbps": 1e-3}}
    cluster = hk.Cluster.model_validate({"name": "two", "nodes": nodes, "network": network})
    model = hk.Model.preset("llama2-70b").model_copy(update={"num_layers": 8})
    problem = Problem.of(cluster, model)
    names = [n.name for n in cluster.nodes]
    speed = problem.throughput(names[0], 4)
    groups = [Group("A100-40G", "", tuple(names), (speed,) * 4)]
    stage = PatternStage.of(4, [((0, 4),)] * 2, groups)
    flows = array_flows(problem, names, partial_inference=True)
    found = fit_to_links(flows, groups, [stage, stage], 2 * speed, random.Random(0), Watch(20))
    assert found.tokens_per_s == pytest.approx(2 * speed, rel=1e-3)
    assert flows.tokens_per_s(np.arange(4), np.array([0, 0, 4, 4]), np.array([4, 4, 8, 8])) < 0.01 * speed
    assert problem.max_flow(found.placement).tokens_per_s == pytest.approx(found.tokens_per_s, rel=1e-5)
    # Both stages have a node of each region.
    for start in (0, 4):
        held = {cluster.region_of(n) for n, span in found.placement.items() if span[0] == start}
        assert held == {"east", "west"}


def test_a_stopped_annealing_keeps_its_start():
    problem = Problem.of(hk.Cluster.preset("geo24"), hk.Model.preset("llama-30b"))
    names = [n.name for n in problem.cluster.nodes if n.gpu == "T4"]
    k = problem.max_layers(names[0])
    groups = [Group("T4", "", tuple(names), tuple(problem.throughput(names[0], i) for i in range(1, k + 1)))]
    stages = [PatternStage.of(k, [((0, k),)], groups)] * (len(names) // 2)
    flows = array_flows(problem, names, partial_inference=True)
    found = fit_to_links(flows, groups, stages, 1e9, random.Random(0), Watch(60, stop=lambda: True))
    spans = np.array(list(found.placement.values()))
    assert list(found.placement) == names[: len(stages)]
    assert spans[:, 0].tolist() == [k * i for i in range(len(stages)) if k * i < problem.num_layers]
