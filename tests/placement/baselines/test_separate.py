"""Separate pipelines: one a kind, requests never change them, and the kinds left over form one more."""

import pytest

import helix_kit as hk


def test_separate_pipelines_stay_separate():
    plan = hk.plan("single24", "llama2-70b", method="separate")
    kinds = [{plan.problem.kind_of[stage.node] for stage in path} for path, _ in plan.pipelines]
    assert sorted(map(sorted, kinds)) == [["A100-40G"], ["L4"], ["T4"]]
    throughput = plan.node_throughput_tokens_per_s
    slowest = [min(t for n, t in throughput.items() if n.startswith(kind)) for kind in ("A100", "L4", "T4")]
    assert plan.flow_tokens_per_s == pytest.approx(sum(slowest), abs=0.01)


def test_plus_uses_the_kinds_left_over():
    alone = hk.plan("hetero42", "llama2-70b", method="separate")
    plus = hk.plan("hetero42", "llama2-70b", method="separate-plus")
    left = {n.name for n in plus.cluster.nodes if n.kind in ("V100-16G", "T4")}
    assert left.isdisjoint(alone.placement)
    assert left <= set(plus.placement)
    assert plus.flow_tokens_per_s > alone.flow_tokens_per_s


def test_no_kind_alone_is_an_error_with_a_way_out():
    # An L4 holds up to 11 x 1.75 layers and a T4 up to 7 x 1.75, of 60.
    small = hk.Cluster.model_validate({"name": "s", "nodes": [{"gpu": "L4", "count": 3}, {"gpu": "T4", "count": 4}]})
    with pytest.raises(hk.InfeasibleError, match="no kind of GPU") as error:
        hk.plan(small, "llama-30b", method="separate")
    assert error.value.fix == "use method 'pattern', which mixes kinds in a pipeline"


def test_no_node_holds_more_than_its_memory_where_that_is_known():
    nodes = [{"gpu": "B200", "count": 2}, {"gpu": "L40S", "count": 3}]
    cluster = hk.Cluster.model_validate({"name": "estimated", "nodes": nodes})
    problem = hk.Problem.of(cluster, hk.Model.preset("llama3.1-70b"))
    limit = problem.max_layers("L40S-0")
    assert 3 * limit < 80 < 3 * 1.75 * limit  # with measured tables three of them would do
    plan = hk.plan(cluster, "llama3.1-70b", method="separate")
    assert set(plan.placement) == {"B200-0", "B200-1"} and problem.holds(plan.placement)
