"""Listing stages that there are nodes for: compared with all sets of lanes of small clusters."""

import itertools

import numpy as np
import pytest

from helix_kit.placement.groups import Group
from helix_kit.placement.pattern.pricing import StagePricing
from helix_kit.placement.pattern.search import PatternSearch
from helix_kit.placement.pattern.whole_stages import cheapest_whole_stages, is_there
from helix_kit.placement.watch import Watch

TARGET = 60.0


def random_groups(rng):
    tables = [sorted(rng.uniform(10, 70, size).tolist(), reverse=True) for size in (3, 2)]
    sizes = rng.integers(1, 4, 2)
    return [
        Group(f"kind{i}", "", tuple(f"{i}-{j}" for j in range(n)), tuple(t))
        for i, (t, n) in enumerate(zip(tables, sizes))
    ]


def least_cost(groups, length, prices):
    """The cost of the cheapest stage within the numbers of nodes, by trying every set of nodes as lanes."""
    parts = [(g, k) for g, group in enumerate(groups) for k in range(1, group.max_layers + 1)]
    lanes = [
        (min(groups[g].throughput[k - 1] for g, k in chain), [sum(g == i for g, _ in chain) for i in range(2)])
        for count in range(1, length + 1)
        for chain in itertools.combinations_with_replacement(parts, count)
        if sum(k for _, k in chain) == length
    ]
    costs = [
        float(np.dot(np.sum([uses for _, uses in chosen], axis=0), prices))
        for count in range(1, 7)
        for chosen in itertools.combinations_with_replacement(lanes, count)
        if sum(rate for rate, _ in chosen) >= TARGET
        and all(u <= g.size for u, g in zip(np.sum([uses for _, uses in chosen], axis=0), groups))
    ]
    return min(costs, default=None)


@pytest.mark.parametrize("seed", range(8))
def test_the_first_of_each_length_is_the_cheapest_that_there_are_nodes_for(seed):
    rng = np.random.default_rng(seed)
    groups, prices = random_groups(rng), rng.uniform(0.1, 1.0, 2)
    stages = list(cheapest_whole_stages(StagePricing(groups, TARGET, 4), prices, 20.0))
    for length in (1, 2, 3, 4):
        found = [float(np.dot(s.uses, prices)) for s in stages if s.length == length]
        least = least_cost(groups, length, prices)
        assert (min(found) if found else None) == (None if least is None else pytest.approx(least))
        assert found == sorted(found)
    assert all(s.rate >= TARGET * (1 - 1e-9) and is_there(s, [g.size for g in groups]) for s in stages)


def test_stages_above_the_loss_are_left_out():
    groups = [Group("L4", "", ("a", "b"), (50.0, 30.0))]
    pricing = StagePricing(groups, TARGET, 2)
    assert [s.length for s in cheapest_whole_stages(pricing, np.array([0.6]), 0.1)] == [2]


def test_few_nodes_of_each_kind_are_filled():
    """Of 60 tokens/s a kind carries 40 or 20. Priced without their number, two of the fast ones look best."""
    groups = [Group("fast", "", ("f",), (40.0, 40.0)), Group("slow", "", ("s", "t"), (20.0, 20.0))]
    assert PatternSearch(groups, 2, Watch(20), is_thorough=True).attempt(TARGET) is not None
