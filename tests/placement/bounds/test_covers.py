"""Bounds B2 and B3: by hand, and above the best placement of small problems found by brute force."""

from itertools import product

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import helix_kit as hk
from helix_kit.placement.bounds import ProofEffort, cover_bound, cover_bound_of, covers, spread_bound, whole_cover_bound
from helix_kit.placement.groups import Group, groups_of
from helix_kit.placement.problem import Problem
from helix_kit.placement.watch import Watch


def best_coverage(groups, num_layers):
    """The largest flow, by trying every range of every node: the least, over layers, of the T of the nodes there."""
    ranges = []
    for group in groups:
        spans = [None] + [
            (s, s + k, t) for k, t in enumerate(group.throughput, 1) for s in range(num_layers - k + 1)
        ]  # fmt: skip
        ranges += [spans] * group.size
    best = 0.0
    for placement in product(*ranges):
        held = [0.0] * num_layers
        for start, end, t in filter(None, placement):
            for layer in range(start, end):
                held[layer] += t
        best = max(best, min(held))
    return best


@settings(max_examples=40)
@given(st.data())
def test_every_bound_is_above_the_best_placement_and_below_the_one_before(data):
    num_layers = data.draw(st.integers(1, 3))
    groups = []
    for i in range(data.draw(st.integers(1, 2))):
        table = sorted(data.draw(st.lists(st.integers(1, 20), min_size=1, max_size=num_layers)), reverse=True)
        size = data.draw(st.integers(1, 2))
        groups.append(Group(f"k{i}", "r", tuple(f"k{i}-{j}" for j in range(size)), tuple(map(float, table))))
    assume(sum(g.size * g.max_layers for g in groups) >= num_layers)
    best = best_coverage(groups, num_layers)
    b1 = spread_bound(groups, num_layers)
    b2 = cover_bound(groups, num_layers, low=0.0, high=b1)
    b3 = whole_cover_bound(groups, num_layers, low=best, high=b2, effort=ProofEffort(Watch(30.0)))
    assert best <= b3 * (1 + 1e-9) <= b2 * (1 + 1e-9) <= b1 * (1 + 2e-9)


@pytest.mark.parametrize(
    ("size", "table", "num_layers", "bound"),
    [
        (3, (10.0,), 2, 10.0),  # 20 takes two nodes for each of two layers
        (4, (10.0,), 2, 20.0),
        (5, (10.0,), 2, 20.0),  # 30 takes six nodes
        (2, (10.0, 7.0), 2, 14.0),  # both hold both layers
    ],
)
def test_cover_bound_by_hand(size, table, num_layers, bound):
    group = Group("a", "r", tuple(f"a{i}" for i in range(size)), table)
    # T counts in whole units of F, 8192 of them, rounded up: a bound may be a little high, never low.
    assert cover_bound([group], num_layers, low=0.0, high=100.0) == pytest.approx(bound, rel=1e-3)


def test_kinds_are_merged_across_regions():
    here, there = (Group("a", region, (f"a-{region}",), (10.0,)) for region in ("east", "west"))
    both = Group("a", "", ("a-east", "a-west"), (10.0,))
    assert cover_bound([here, there], 1, low=0.0, high=50.0) == cover_bound([both], 1, low=0.0, high=50.0)


def test_bounds_that_were_cut_short_are_valid_and_not_remembered():
    problem = Problem.of(hk.Cluster.preset("geo24"), hk.Model.preset("llama-30b"))
    groups = tuple(groups_of(problem))
    covers._remembered.clear()
    cut = cover_bound_of(groups, 60, lambda: True)
    whole = cover_bound_of(groups, 60)
    assert cut > 1.01 * whole
    assert cover_bound_of(groups, 60, lambda: True) == whole
