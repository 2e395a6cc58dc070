"""Moves keep a placement a placement: ranges inside the model and within memory."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import helix_kit as hk
from helix_kit.placement import Problem
from helix_kit.search.moves import MOVES, key_of, move_stage, neighbours, stages_of, swap_stages

PROBLEM = Problem.of(hk.Cluster.preset("single24"), hk.Model.preset("llama2-70b"))
START = hk.plan(PROBLEM.cluster, PROBLEM.model, max_stages=12).placement


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_neighbours_are_valid_and_new(seed):
    found = list(neighbours(PROBLEM, START, np.random.default_rng(seed), 10))
    assert len({key_of(p) for p in found} - {key_of(START)}) == len(found) >= 5
    for placement in found:
        PROBLEM.check_placement(placement)
        assert all(e - s <= PROBLEM.max_layers(n) for n, (s, e) in placement.items())


def test_same_seed_same_neighbours():
    runs = [[key_of(p) for p in neighbours(PROBLEM, START, np.random.default_rng(3), 10)] for _ in range(2)]
    assert runs[0] == runs[1]


@pytest.mark.parametrize("move", dict.fromkeys(MOVES), ids=lambda m: m.__name__)
def test_every_move_does_something(move):
    rng = np.random.default_rng(0)
    # Half the nodes out, so that there is one to add.
    some = {n: s for n, s in START.items() if n != "T4-0"}
    made = [move(PROBLEM, some, rng) for _ in range(40)]
    assert any(p is not None and key_of(p) != key_of(some) for p in made)


@pytest.mark.parametrize("move", [swap_stages, move_stage], ids=lambda m: m.__name__)
@pytest.mark.parametrize("seed", range(4))
def test_whole_stages_in_another_order_keep_the_flow_exactly(move, seed):
    """In one region all links are equal, and each stage carries what it carried: the narrowest one decides."""
    after = move(PROBLEM, START, np.random.default_rng(seed))
    assert PROBLEM.max_flow(after).tokens_per_s == PROBLEM.max_flow(START).tokens_per_s
    assert sorted(stages_of(after)) == sorted(stages_of(START))


@pytest.mark.parametrize("nodes", [1, 2])
def test_a_plan_of_one_or_two_nodes_keeps_a_node(nodes):
    """Two moves in a row may take two nodes away, and no move works on a plan without nodes."""
    cluster = hk.Cluster.model_validate({"name": "few", "nodes": [{"gpu": "H100-80G", "count": nodes}]})
    problem = Problem.of(cluster, hk.Model.preset("qwen3-32b"))
    for seed in range(20):
        placement = {node.name: (0, problem.num_layers) for node in cluster.nodes}
        assert all(neighbours(problem, placement, np.random.default_rng(seed), 10))
