"""Parallax: pipelines inside regions first, then across them."""

import helix_kit as hk
from helix_kit.placement.baselines import parallax_placement


def test_pipelines_are_completed_inside_regions_first():
    plan = hk.plan("geo24", "llama-30b", method="parallax")
    whole = [path for path, _ in plan.pipelines if len({plan.cluster.region_of(s.node) for s in path}) == 1]
    assert whole


def test_by_hand():
    """11 layers fit on an L4: three start a pipeline of 33, and the smallest that completes it, a T4, ends it."""
    cluster = hk.Cluster.model_validate({"name": "c", "nodes": [{"gpu": "L4", "count": 4}, {"gpu": "T4", "count": 2}]})
    model = hk.Model.preset("llama-30b").model_copy(update={"num_layers": 39})
    problem = hk.Problem.of(cluster, model)
    assert (problem.max_layers("L4-0"), problem.max_layers("T4-0")) == (11, 7)
    placement = parallax_placement(problem)
    first = {n: s for n, s in placement.items() if n in ("L4-0", "L4-1", "L4-2", "T4-1")}
    assert sum(end - start for start, end in first.values()) == 39
    assert sorted(first.values())[0][0] == 0 and sorted(first.values())[-1][1] == 39
    assert placement.keys() == {n.name for n in cluster.nodes}
