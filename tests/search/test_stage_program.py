"""The N/R program against every choice of blocks, and its layouts."""

from itertools import product

import pytest

import helix_kit as hk
from helix_kit.placement import Problem
from helix_kit.placement.groups import groups_of
from helix_kit.placement.watch import Watch
from helix_kit.search.predictor import Predictor
from helix_kit.search.stage_program import Solving, _choose, blocks, lay_out, orders, programs


@pytest.fixture(scope="module")
def small():
    """Two groups of two nodes and a model of six layers."""
    cluster = hk.Cluster.model_validate(
        {"name": "four", "nodes": [{"gpu": "A100-40G", "count": 2}, {"gpu": "L4", "count": 2}]}
    )
    model = hk.Model.preset("llama-30b").model_copy(update={"name": "six-layers", "num_layers": 6})
    return Problem.of(cluster, model)


def test_chosen_blocks_cost_the_least_of_all_choices(small):
    groups, predictor = groups_of(small), Predictor(small)
    costs = {b: b.cost(1.0, 232.0, 4.0) for b in blocks(groups, predictor)}
    chosen = _choose(costs, groups, 6, Solving("highs", 0, Watch(60)))
    assert sum(b.length for b in chosen) == 6

    def cheapest(layers, left):
        """Least cost of exactly `layers` layers with `left` nodes of each group, by trying every block."""
        if layers == 0:
            return 0.0
        costs_here = [
            cost + cheapest(layers - b.length, tuple(n - c for n, c in zip(left, b.counts)))
            for b, cost in costs.items()
            if b.length <= layers and all(c <= n for n, c in zip(left, b.counts))
        ]
        return min(costs_here, default=float("inf"))

    assert sum(costs[b] for b in chosen) == pytest.approx(cheapest(6, (2, 2)), rel=0.005)


def test_layouts_hold_every_layer_on_different_nodes(small):
    groups = groups_of(small)
    chains = list(programs(groups, Predictor(small), Solving("highs", 0, Watch(60)), max_programs=3))
    assert chains and all(chain.tokens_per_s > 0 for chain in chains)
    for chain in chains:
        for order in orders(chain.blocks):
            placement = lay_out(order, groups)
            assert small.holds(placement)
            assert len(placement) == sum(sum(b.counts) for b in chain.blocks)
            assert {layer for span in placement.values() for layer in range(*span)} == set(range(6))


def test_filled_blocks_carry_the_flow_that_they_are_filled_to(small):
    groups, predictor = groups_of(small), Predictor(small)
    limit = 0.9 * max(g.throughput[0] for g in groups)
    filled = blocks(groups, predictor, limit)
    rates = {(b.length, b.counts): sum(n * g.throughput[b.length - 1] for n, g in zip(b.counts, groups) if n)
             for b in blocks(groups, predictor)}  # fmt: skip
    assert {(b.length, b.counts) for b in filled} == {key for key, rate in rates.items() if rate >= limit}
    assert all(counts in set(product(range(3), repeat=2)) for _, counts in rates)
