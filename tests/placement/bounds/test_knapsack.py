"""Covers of a layer against every set of nodes tried by brute force."""

from itertools import combinations_with_replacement

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helix_kit.placement.bounds.knapsack import CoverKnapsack
from helix_kit.placement.groups import Group

TARGET = 8192.0
"""As many tokens/s as the knapsack has units, so that whole throughputs are exact."""
HALF, THIRD = 4096.0, 2731.0


def all_covers(groups, max_nodes):
    items = [((g, k), t) for g, group in enumerate(groups) for k, t in enumerate(group.throughput, 1)]
    for count in range(1, max_nodes + 1):
        for chosen in combinations_with_replacement(items, count):
            if sum(t for _, t in chosen) >= TARGET:
                yield [item for item, _ in chosen]


@settings(max_examples=50)
@given(st.data())
def test_cheapest_cover(data):
    table = st.lists(st.sampled_from([HALF, THIRD, 6000.0, TARGET]), min_size=1, max_size=2)
    groups = [
        Group(f"k{i}", "r", (f"n{i}",), tuple(sorted(data.draw(table), reverse=True)))
        for i in range(data.draw(st.integers(1, 2)))
    ]
    prices = np.array([data.draw(st.integers(1, 9)) for _ in groups], float)
    costs = [(len(c), sum(prices[g] / k for g, k in c)) for c in all_covers(groups, 4)]
    knapsack = CoverKnapsack(groups, TARGET)
    for at_least in (1, 2):
        cost, cover = knapsack.cheapest(prices, at_least=at_least)
        assert cost == pytest.approx(min(c for n, c in costs if n >= at_least))
        assert sum(cover.values()) >= at_least
        assert sum(n * groups[g].throughput[k - 1] for (g, k), n in cover.items()) >= TARGET


def test_covers_within_a_cost_are_the_minimal_ones():
    """Two halves, or three thirds, or one of each with a second third: all minimal covers of two kinds."""
    groups = [Group("half", "r", ("h",), (HALF,)), Group("third", "r", ("t",), (THIRD,))]
    knapsack = CoverKnapsack(groups, TARGET)
    covers = knapsack.within(np.array([1.0, 1.0]), 3.0, 100)
    assert sorted(sorted(c.items()) for c in covers) == [
        [((0, 1), 1), ((1, 1), 2)],
        [((0, 1), 2)],
        [((1, 1), 3)],
    ]
    assert knapsack.within(np.array([1.0, 1.0]), 2.0, 100) == [{(0, 1): 2}]
    assert knapsack.within(np.array([1.0, 1.0]), 3.0, 1) is None
