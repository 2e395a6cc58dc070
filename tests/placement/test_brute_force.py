"""Small random clusters against every placement there is: values never above, bounds never below, usually equal."""

import dataclasses
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import helix_kit as hk
from helix_kit.placement import Problem
from helix_kit.placement.planner import plan_problem

KINDS = ("T4", "L4", "A100-40G", "V100-16G")


def make_problem(layers, counts, tables, bandwidths=None):
    """A problem with throughput tables of our own; `bandwidths` maps (node, node) to Gbit/s."""
    nodes = [{"gpu": kind, "count": n} for kind, n in zip(KINDS, counts) if n]
    links = [{"source": a, "target": b, "bandwidth_gbps": g} for (a, b), g in (bandwidths or {}).items()]
    network = {"within_region": {"bandwidth_gbps": 10}, "links": links}
    cluster = hk.Cluster.model_validate({"name": "small", "nodes": nodes, "network": network})
    model = hk.Model.preset("llama2-70b").model_copy(update={"num_layers": layers})
    base = Problem.of(cluster, model)
    profiles = {
        kind: p.model_copy(
            update={
                name: getattr(p, name)[:1] * len(tables[kind])
                for name in ("kv_capacity_layer_tokens", "prefill_max_requests", "decode_max_requests")
            }
        )
        for kind, p in base.profiles.items()
    }
    return dataclasses.replace(
        base, profiles=profiles, throughput_by_kind={kind: tuple(map(float, tables[kind])) for kind in base.profiles}
    )


def brute_force(problem):
    """The best flow over all placements, tried in order of a bound that needs no flow graph."""
    layers = problem.num_layers
    options, names = [], [n.name for n in problem.cluster.nodes]
    for name in names:
        spans = [(s, s + k) for k in range(1, problem.max_layers(name) + 1) for s in range(layers - k + 1)]
        options.append([None, *spans])
    ranked = []
    for choice in itertools.product(*options):
        held = [0.0] * layers
        for name, span in zip(names, choice):
            if span:
                t = problem.throughput(name, span[1] - span[0])
                for layer in range(*span):
                    held[layer] += t
        if min(held) > 0:
            ranked.append((min(held), choice))
    ranked.sort(key=lambda pair: -pair[0])
    best = 0.0
    for most, choice in ranked:
        if most <= best:
            break
        placement = {n: s for n, s in zip(names, choice) if s}
        best = max(best, problem.max_flow(placement).tokens_per_s)
    return best


@st.composite
def problems(draw, slow_links=False):
    layers = draw(st.integers(3, 6))
    counts = draw(st.sampled_from([(3, 0, 0, 0), (2, 1, 0, 0), (1, 1, 1, 0), (2, 2, 0, 0), (3, 1, 0, 0)]))
    tables = {}
    for kind in KINDS:
        most = draw(st.integers(2, 4 if sum(counts) < 4 else 3))
        # A falling table with any ratios: k T(k) may rise or fall.
        steps = draw(st.lists(st.integers(5, 60), min_size=most, max_size=most))
        tables[kind] = [sum(steps[i:]) for i in range(most)]
    names = [f"{kind}-{i}" for kind, n in zip(KINDS, counts) for i in range(n)]
    bandwidths = {}
    if slow_links:
        for a, b in itertools.permutations(names, 2):
            if draw(st.booleans()):
                # 16386 bytes a token: 0.005 Gbit/s is 38 tokens/s.
                bandwidths[a, b] = draw(st.sampled_from([0.002, 0.005, 0.01]))
    held = sum(n * len(tables[kind]) for kind, n in zip(KINDS, counts))
    return make_problem(min(layers, held), counts, tables, bandwidths)


@settings(max_examples=25, deadline=None)
@given(problems())
def test_pattern_is_optimal_where_links_do_not_bind(problem):
    best = brute_force(problem)
    plan = plan_problem(problem)
    assert plan.flow_tokens_per_s == pytest.approx(best, rel=1e-4)
    assert plan.flow_tokens_per_s <= best + 0.002
    for name, bound in plan.bounds.items():
        assert bound >= best * (1 - 1e-9), name


@settings(max_examples=15, deadline=None)
@given(problems(slow_links=True))
def test_never_above_and_bounds_hold_where_links_bind(problem):
    best = brute_force(problem)
    plan = plan_problem(problem)
    assert plan.flow_tokens_per_s <= best + 0.002
    for name, bound in plan.bounds.items():
        assert bound >= best * (1 - 1e-9), name


@settings(max_examples=8, deadline=None)
@given(problems(slow_links=True), st.sampled_from(["highs", "glpk"]))
def test_paper_milp_is_optimal(problem, solver):
    best = brute_force(problem)
    plan = plan_problem(problem, method="paper-milp", solver=solver, mip_gap=1e-6, time_limit=30)
    assert plan.flow_tokens_per_s == pytest.approx(best, rel=1e-3, abs=0.01)
    assert plan.bound_tokens_per_s >= best * (1 - 1e-6)
