"""Layers that differ, on small random clusters: no value is above the best of all placements, no bound below it."""

from __future__ import annotations

import itertools
import random

import pytest

from helix_kit.cluster import Cluster
from helix_kit.errors import InfeasibleError
from helix_kit.flow.arrays import ArrayFlows
from helix_kit.layers import Experts, LayerKind
from helix_kit.model import Model
from helix_kit.placement.bounds import least_bound, relaxed_groups, spread_bound
from helix_kit.placement.groups import groups_of
from helix_kit.placement.pattern.mixed_regions import array_flows
from helix_kit.placement.planner import plan_problem
from helix_kit.placement.problem import Problem

LAYERS = 5


def random_problem(seed: int) -> Problem:
    """Two or three kinds of layers of several GB, with and without experts, on three or four small cards."""
    rng = random.Random(seed)
    kinds = []
    for name in ("a", "b", "c")[: rng.choice((2, 3))]:
        params = rng.randrange(1, 20) * 10**8
        experts = None
        if rng.random() < 0.5:
            experts = Experts(count=8, active=2, width=64, params=params // 4, weight_bytes=params / 2)
        window = rng.choice((None, 128))
        kinds.append(
            LayerKind(
                name=name, window_tokens=window, kv_bytes_per_token=rng.choice((2048, 65536)), params=params,
                weight_bytes=2 * params, experts=experts,
            )
        )  # fmt: skip
    pattern = [*range(len(kinds)), *(rng.randrange(len(kinds)) for _ in range(LAYERS - len(kinds)))]
    rng.shuffle(pattern)
    model = Model(
        name="random", num_layers=LAYERS, hidden_size=1024, num_heads=8, intermediate_size=64, vocab_size=1000,
        layer_kinds=tuple(kinds), layer_pattern=tuple(pattern),
    )  # fmt: skip
    nodes = [{"gpu": gpu} for gpu in rng.choices(("T4", "L4", "RTX4090", "A100-40G"), k=3)]
    return Problem.of(Cluster.model_validate({"name": "small", "nodes": nodes}), model)


def best_flow(problem: Problem) -> float:
    """The largest maximum flow over all placements, each computed by the flow graph for those that may be the best."""
    names = [n.name for n in problem.cluster.nodes]
    spans = [(s, e) for s in range(LAYERS) for e in range(s + 1, LAYERS + 1)]
    options = [[None, *(span for span in spans if problem.fits(n, *span))] for n in names]
    best = 0.0
    for chosen in itertools.product(*options):
        placement = {n: span for n, span in zip(names, chosen, strict=True) if span}
        held = [
            sum(problem.range_throughput(n, *s) for n, s in placement.items() if s[0] <= i < s[1])
            for i in range(LAYERS)
        ]
        if min(held) > best * (1 + 1e-9):  # what a layer's nodes have together bounds the flow
            best = max(best, problem.max_flow(placement).tokens_per_s)
    return best


SEEDS = [1, 3]


@pytest.mark.parametrize("seed", SEEDS)
def test_values_and_bounds_hold_for_unequal_layers(seed):
    problem = random_problem(seed)
    assert not problem.is_uniform
    best = best_flow(problem)
    groups = groups_of(problem)
    assert problem.compute_bound >= best * (1 - 1e-9)
    assert least_bound(problem, groups, lambda g, n, _: spread_bound(g, n), 1e12) >= best * (1 - 1e-9)
    for method in ("pattern", "paper-milp"):
        plan = plan_problem(problem, method=method, time_limit_s=30.0, deterministic=method == "pattern")
        assert problem.holds(plan.placement)
        assert plan.flow_tokens_per_s == pytest.approx(best, rel=1e-4)
        assert all(bound >= best * (1 - 1e-6) for bound in plan.bounds.values()), plan.bounds
    for method in ("swarm", "petals", "separate", "parallax", "proportional"):
        try:
            plan = plan_problem(problem, method=method, time_limit_s=5.0)
        except InfeasibleError:  # a baseline may find nothing on so few machines
            continue
        if problem.holds(plan.placement):
            assert plan.flow_tokens_per_s <= best * (1 + 1e-6)
        assert plan.bound_tokens_per_s >= plan.flow_tokens_per_s * (1 - 1e-6)


def test_flows_of_arrays_equal_those_of_the_graph():
    problem = random_problem(3)
    flows = array_flows(problem, [n.name for n in problem.cluster.nodes], True)
    rng = random.Random(0)
    assert isinstance(flows, ArrayFlows)
    for _ in range(100):
        placement = {}
        for name in flows.names:
            start = rng.randrange(LAYERS)
            span = (start, rng.randrange(start + 1, LAYERS + 1))
            if problem.fits(name, *span):
                placement[name] = span
        assert flows.of_placement(placement) == pytest.approx(problem.max_flow(placement).tokens_per_s, abs=2e-3)


def test_a_range_is_as_fast_as_its_layers_and_the_table_is_that_of_the_slowest():
    problem = random_problem(2)
    for node in problem.cluster.nodes:
        for k in range(1, problem.max_layers(node.name) + 1):
            speeds = [problem.range_throughput(node.name, s, s + k) for s in range(LAYERS - k + 1)]
            assert min(speeds) == pytest.approx(problem.throughput(node.name, k))
            assert problem.best_table(node.kind)[k - 1] >= max(speeds) * (1 - 1e-12)


def test_relaxations_of_equal_layers_are_the_problem_itself():
    problem = Problem.of(Cluster.preset("single24"), Model.preset("llama2-70b"))
    groups = groups_of(problem)
    assert problem.is_uniform and relaxed_groups(problem, groups) == groups
    assert problem.best_table("T4") == problem.throughput_by_kind["T4"] and problem.kind_weights == [()]
