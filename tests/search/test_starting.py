"""The placements that a served plan must not be worse than."""

import pytest

import helix_kit as hk
from helix_kit.placement import Problem
from helix_kit.placement.watch import Watch
from helix_kit.search.starting import safe_placements


@pytest.fixture(scope="module")
def problem():
    """Two cities with machines that each hold the whole model."""
    nodes = [{"gpu": "A100-40G", "count": 2, "region": "a"}, {"gpu": "L4", "count": 3, "region": "b"}]
    network = {
        "within_region": {"bandwidth_gbps": 10, "latency_ms": 1},
        "between_regions": {"bandwidth_gbps": 0.2, "latency_ms": 30},
    }
    cluster = hk.Cluster.model_validate(
        {"name": "cities", "coordinator": {"region": "a"}, "nodes": nodes, "network": network}
    )
    return Problem.of(cluster, hk.Model.preset("SmolLM2-135M"))


def test_holds_replicas_baselines_and_each_city_alone(problem):
    known = {"A100-40G-0": (0, problem.num_layers)}
    found = list(safe_placements(problem, [known], 0, Watch(60.0)))
    whole = (0, problem.num_layers)
    assert found[0] == known
    assert dict.fromkeys(problem.kind_of, whole) in found
    for names in (["A100-40G-0", "A100-40G-1"], ["L4-0", "L4-1", "L4-2"]):
        assert dict.fromkeys(names, whole) in found
    for method in ("swarm", "petals"):
        assert hk.plan(problem.cluster, problem.model, method=method).placement in found
    assert all(problem.holds(p) for p in found)


def test_without_time_only_the_baselines_come(problem):
    over = Watch(60.0, stop=lambda: True)
    assert (
        0 < len(list(safe_placements(problem, [], 0, over))) <= len(list(safe_placements(problem, [], 0, Watch(60.0))))
    )
