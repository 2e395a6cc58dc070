"""Method ``replicas`` against all partitions of small clusters into chains."""

from __future__ import annotations

from itertools import combinations

import pytest

import helix_kit as hk
from helix_kit.errors import InfeasibleError
from helix_kit.placement.problem import Problem
from helix_kit.placement.replicas import best_replicas

MODEL = hk.Model.preset("llama-30b").model_copy(update={"num_layers": 6})


def chain_flow(tables, layers):
    """The best flow of a chain by trying every split of the layers: a recursion over nodes."""
    if not tables:
        return float("inf") if layers == 0 else 0.0
    first, *rest = tables
    return max(
        (min(first[k - 1], chain_flow(rest, layers - k)) for k in range(1, min(len(first), layers) + 1)), default=0.0
    )


def best_partition(tables, layers):
    """The most flow of disjoint chains, by trying all of them."""
    if not tables:
        return 0.0
    (_name, table), *others = tables.items()
    best = best_partition(dict(others), layers)  # without the first node
    for size in range(len(others) + 1):
        for chosen in combinations(others, size):
            flow = chain_flow([table, *(t for _, t in chosen)], layers)
            if flow > 0:
                left = {n: t for n, t in others if n not in dict(chosen)}
                best = max(best, flow + best_partition(left, layers))
    return best


@pytest.mark.parametrize("speeds", [
    {"A": (90.0, 50.0, 30.0), "B": (60.0, 35.0, 20.0, 15.0)},
    {"A": (100.0, 100.0, 40.0, 10.0), "B": (30.0, 20.0)},
])  # fmt: skip
@pytest.mark.parametrize("counts", [(2, 2), (3, 1), (4, 1)])
def test_no_partition_is_better(speeds, counts):
    nodes = [{"name": f"{kind}{i}", "gpu": gpu} for kind, gpu, n in zip("AB", ("L4", "T4"), counts, strict=True)
             for i in range(n)]  # fmt: skip
    cluster = hk.Cluster.model_validate({"name": "c", "nodes": nodes})
    base = Problem.of(cluster, MODEL)
    problem = Problem(cluster, MODEL, base.profiles, {"L4": speeds["A"], "T4": speeds["B"]}, base.lengths)
    placed = best_replicas(problem)
    tables = {n.name: speeds[n.name[0]] for n in cluster.nodes}
    expected = best_partition(tables, 6)
    assert problem.max_flow(placed.placement, links=placed.links).tokens_per_s == pytest.approx(expected, rel=1e-3)


def test_chains_share_no_node_and_keep_to_the_largest_number_of_stages():
    cluster = hk.Cluster.model_validate(
        {"name": "c", "nodes": [{"gpu": "A100-80G", "count": 3}, {"gpu": "L40S", "count": 4}]}
    )
    plan = hk.plan(cluster, "llama-30b", engine="vllm-0.15", max_stages=2, time_limit_s=5)
    assert plan.method == "replicas"
    assert all(len(stages) <= 2 for stages, _ in plan.pipelines)
    nodes = [stage.node for stages, _ in plan.pipelines for stage in stages]
    assert len(nodes) == len(set(nodes))
    assert hk.Plan.model_validate_json(plan.model_dump_json()).engine == plan.engine


@pytest.mark.parametrize("ends", [(0, 1), (2, 3), (0, 11), (10, 11)])
def test_chains_go_round_a_missing_link_wherever_it_is(ends):
    """Twelve nodes hold three chains of four. One link of 66 is missing: it need not be used."""
    nodes = [{"gpu": "A100-40G", "count": 12}]

    def flow(network):
        cluster = hk.Cluster.model_validate({"name": "c", "nodes": nodes, "network": network})
        problem = Problem.of(cluster, hk.Model.preset("llama-30b"))
        placed = best_replicas(problem)
        return problem.max_flow(placed.placement, links=placed.links).tokens_per_s

    missing = {"between": [f"A100-40G-{i}" for i in ends], "bandwidth_gbps": 0}
    assert flow({"links": [missing]}) == pytest.approx(flow({}), rel=1e-6)


def test_a_plan_for_our_runtime_says_nothing_of_engines():
    plan = hk.plan("laptop", "SmolLM2-135M", method="petals")
    assert "engine" not in plan.model_dump()


def test_a_model_that_no_chain_holds_is_told():
    cluster = hk.Cluster.model_validate({"name": "c", "nodes": [{"gpu": "A100-80G", "count": 2}]})
    problem = Problem.of(cluster, hk.Model.preset("llama2-70b"))
    assert best_replicas(problem, max_stages=1) is None
    with pytest.raises(InfeasibleError, match="no chain of nodes"):
        hk.plan(cluster, "llama2-70b", method="replicas", max_stages=1)
