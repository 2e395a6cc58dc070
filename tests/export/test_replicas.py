"""Replicas: exact where pipelines share no node, else the widest ones, against trying every path."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from simulated import plans

import helix_kit as hk
from helix_kit.cluster import COORDINATOR
from helix_kit.errors import InputError
from helix_kit.export import ranks_of, replicas_of
from helix_kit.export.replicas import Replica, _widest
from helix_kit.flow import Stage


def paths(plan, free, done=0, before=()):
    """Every pipeline of free nodes, by recursion."""
    if done == plan.problem.num_layers:
        yield before
        return
    for node in free - {s.node for s in before}:
        start, end = plan.placement[node]
        if start <= done < end:
            yield from paths(plan, free, end, (*before, Stage(node, done, end)))


def capacity(plan, pipeline):
    problem = plan.problem
    hops = [COORDINATOR, *(s.node for s in pipeline), COORDINATOR]
    return min(
        [problem.throughput(s.node, s.end - s.start) for s in pipeline]
        + [problem.link_capacity(a, b) for a, b in pairwise(hops)]
    )


@settings(max_examples=30)
@given(plans())
def test_the_widest_pipeline_of_all(plan):
    free = set(plan.placement)
    widest = _widest(plan, free)
    assert widest is not None
    assert widest.flow_tokens_per_s == pytest.approx(max(capacity(plan, p) for p in paths(plan, free)))


@settings(max_examples=30)
@given(plans())
def test_replicas_share_nothing_and_cover_all_layers(plan):
    found = replicas_of(plan)
    used = [stage.node for replica in found.replicas for stage in replica.stages]
    assert len(used) == len(set(used)) and set(used) | set(found.unused) == set(plan.placement)
    for replica in found.replicas:
        assert replica.stages[0].start == 0 and replica.stages[-1].end == plan.problem.num_layers
        assert all(a.end == b.start for a, b in pairwise(replica.stages))
        assert sum(replica.partition) == plan.problem.num_layers
        for stage in replica.stages:
            low, high = plan.placement[stage.node]
            assert low <= stage.start < stage.end <= high
    assert 0 <= found.loss <= 1 and max(found.weights) == 100


def test_a_chain_is_exact_and_the_shared_plan_is_not(overlapping_plan):
    assert not replicas_of(overlapping_plan).is_exact and replicas_of(overlapping_plan).loss > 0
    separate = hk.plan("single24", "llama2-70b", method="separate")
    found = replicas_of(separate)
    assert found.is_exact and found.loss == pytest.approx(0, abs=1e-6) and len(found.replicas) == 3


def test_gpus_of_a_node_are_joined_only_if_all_nodes_have_as_many():
    cluster = hk.Cluster.model_validate(
        {"name": "mixed", "nodes": [{"name": "a", "gpu": "L4", "gpus_per_node": 2}, {"name": "b", "gpu": "L4"},
                                    {"name": "c", "gpu": "L4", "gpus_per_node": 2}]}
    )  # fmt: skip
    problem = hk.Problem.of(cluster, hk.Model.preset("SmolLM2-135M"))

    def ranks(placement, **options):
        plan = hk.Plan.from_placement(problem, placement, method="hand")
        return [tuple(r) for r in ranks_of(replicas_of(plan).replicas[0], plan, **options)]

    assert ranks({"a": (0, 11), "c": (11, 30)}) == [("a", (0, 1), 11), ("c", (0, 1), 19)]
    assert ranks({"a": (0, 11), "b": (11, 30)}) == [("a", (0,), 6), ("a", (1,), 5), ("b", (0,), 19)]
    split = ranks({"a": (0, 11), "c": (11, 30)}, may_join_gpus=False)
    assert [r[2] for r in split] == [6, 5, 10, 9] and sum(r[2] for r in split) == 30


def test_weights_follow_the_flow():
    from helix_kit.export import Replicas

    made = [Replica((Stage("a", 0, 1),), 50.0), Replica((Stage("b", 0, 1),), 20.0), Replica((Stage("c", 0, 1),), 0.1)]
    assert Replicas(tuple(made), 70.1, True, ()).weights == (100, 40, 1)


def test_a_plan_without_flow():
    problem = hk.Problem.of(hk.Cluster.preset("laptop"), hk.Model.preset("SmolLM2-135M"))
    plan = hk.Plan.from_placement(problem, {problem.cluster.nodes[0].name: (0, 5)}, method="hand")
    with pytest.raises(InputError, match="carries flow"):
        replicas_of(plan)


@pytest.mark.parametrize(
    ("ranks", "expected"),
    [
        (4, [("a", (0, 1, 2, 3), 30), ("b", (0, 1, 2, 3), 30)]),
        (2, [("a", (0, 1), 15), ("a", (2, 3), 15), ("b", (0, 1), 15), ("b", (2, 3), 15)]),
    ],
)
def test_gpus_of_a_node_are_joined_as_its_file_says(ranks, expected):
    nodes = [{"name": name, "gpu": "L4", "gpus_per_node": 4, "tensor_parallel": ranks} for name in "ab"]
    problem = hk.Problem.of(hk.Cluster.model_validate({"name": "two", "nodes": nodes}), hk.Model.preset("llama-30b"))
    plan = hk.Plan.from_placement(problem, {"a": (0, 30), "b": (30, 60)}, method="hand")
    assert [tuple(rank) for rank in ranks_of(replicas_of(plan).replicas[0], plan)] == expected
