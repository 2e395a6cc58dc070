"""The placements that need no search: every baseline, and the joined baselines of regions and kinds."""

import pytest

import helix_kit as hk
from helix_kit.errors import InfeasibleError
from helix_kit.placement import Problem, baselines
from helix_kit.placement.groups import groups_of
from helix_kit.placement.pattern.starts import replicas, start_placements


def problem_of(nodes, layers):
    network = {"within_region": {"bandwidth_gbps": 10}, "between_regions": {"bandwidth_gbps": 0.001}}
    cluster = hk.Cluster.model_validate({"name": "some", "nodes": nodes, "network": network})
    return Problem.of(cluster, hk.Model.preset("llama2-70b").model_copy(update={"num_layers": layers}))


def starts_of(problem):
    def value_of(placement):
        return problem.max_flow(placement).tokens_per_s if placement else 0.0

    return list(start_placements(problem, groups_of(problem), 0, value_of))


def test_every_baseline_is_among_them():
    problem = problem_of([{"gpu": "L4", "count": 4}, {"gpu": "T4", "count": 5}], 16)
    found = starts_of(problem)
    for expected in (
        baselines.swarm_placement(problem),
        baselines.petals_placement(problem, 0),
        baselines.parallax_placement(problem),
        baselines.proportional_placement(problem),
    ):
        assert expected in found
    assert all(problem.holds(placement) for placement in found)


def test_regions_are_joined():
    """Each region holds the model alone: one placement uses both, without a way from one to the other."""
    problem = problem_of([{"gpu": "A100-40G", "count": 2, "region": r} for r in ("east", "west")], 16)
    values = [problem.max_flow(p).tokens_per_s for p in starts_of(problem)]
    east = [n.name for n in problem.cluster.nodes if n.region == "east"]
    alone = problem.max_flow(dict(zip(east, [(0, 8), (8, 16)]))).tokens_per_s
    assert max(values) == pytest.approx(2 * alone, rel=1e-3)


def test_replicas_are_whole_models():
    problem = problem_of([{"gpu": "A100-40G", "count": 2}, {"gpu": "T4", "count": 3}], 8)
    assert replicas(problem) == {"A100-40G-0": (0, 8), "A100-40G-1": (0, 8)}
    with pytest.raises(InfeasibleError):
        replicas(problem_of([{"gpu": "T4", "count": 3}], 8))
