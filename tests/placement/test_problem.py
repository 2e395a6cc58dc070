"""The problem: what nodes hold and serve, and placements that are refused."""

import pytest

import helix_kit as hk


@pytest.fixture(scope="module")
def problem():
    return hk.Problem.of(hk.Cluster.preset("single24"), hk.Model.preset("llama2-70b"))


def test_throughput_beyond_the_maximum_is_scaled_down(problem):
    assert problem.max_layers("T4-0") == 4
    assert problem.throughput("T4-0", 8) == pytest.approx(problem.throughput("T4-0", 4) / 2)


def test_compute_bound_by_hand(problem):
    """Each node alone, at its best number of layers, shared over 80 layers."""
    nodes = [(n.name, problem.max_layers(n.name)) for n in problem.cluster.nodes]
    total = sum(max(k * problem.throughput(n, k) for k in range(1, most + 1)) for n, most in nodes)
    assert problem.compute_bound == pytest.approx(total / 80)


def test_fewest_nodes(problem):
    # Four A100 of 12 layers and five of the L4 of 7 hold 83 layers; with four L4 it is 76.
    assert problem.fewest_nodes == 9


@pytest.mark.parametrize(
    ("placement", "fits"),
    [({"T4-0": (0, 4)}, True), ({"T4-0": (0, 5)}, False), ({"T4-0": (78, 82)}, False), ({"T4-0": (3, 3)}, False)],
)
def test_holds_within_memory_and_model(problem, placement, fits):
    assert problem.holds(placement) is fits


@pytest.mark.parametrize(("placement", "text"), [({"T4-99": (0, 4)}, "unknown node"), ({"T4-0": (78, 82)}, "<= 80")])
def test_wrong_placements_are_refused(problem, placement, text):
    with pytest.raises(hk.InputError, match=text):
        problem.check_placement(placement)


def test_capacities_of_ones_own_stand_in_place_of_the_tables(problem):
    placement = hk.plan("single24", "llama2-70b", method="petals", prove=False).placement
    usual = problem.max_flow(placement)
    halved = {n: t / 2 for n, t in problem.node_throughput(placement).items()}
    half = problem.max_flow(placement, capacity_tokens_per_s=halved)
    assert half.tokens_per_s == pytest.approx(usual.tokens_per_s / 2, abs=0.1)
