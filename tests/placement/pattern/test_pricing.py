"""Pricing finds the cheapest stages: compared with all stages of small clusters, listed one by one."""

import itertools
import math

import numpy as np
import pytest

from helix_kit.placement.groups import Group
from helix_kit.placement.pattern import stage_kernel
from helix_kit.placement.pattern.pricing import StagePricing, cover_costs_of_arrays

TARGET, LAYERS = 60.0, 4


def groups_of_two_kinds(rng):
    """T(k) in whole shares of the target, so that rounding to whole units costs nothing."""
    tables = [sorted((float(TARGET / rng.integers(1, 6)) for _ in range(size)), reverse=True) for size in (3, 2)]
    return [Group(f"kind{i}", "", tuple(f"{i}-{j}" for j in range(9)), tuple(t)) for i, t in enumerate(tables)]


def lanes_of(groups, length):
    """Every lane of a length, as (rate, nodes of each group)."""
    if length == 0:
        return [(math.inf, (0, 0))]
    lanes = []
    for g, group in enumerate(groups):
        for k, t in enumerate(group.throughput, 1):
            if k <= length:
                for rate, uses in lanes_of(groups, length - k):
                    lanes.append((min(rate, t), tuple(n + (i == g) for i, n in enumerate(uses))))
    return list(dict.fromkeys(lanes))


def least_cost(groups, length, prices):
    """The cost of the cheapest stage that carries the target; five lanes are always enough here."""
    lanes = [(rate, float(np.dot(uses, prices))) for rate, uses in lanes_of(groups, length)]
    # A lane that another one beats in rate and cost is not needed.
    lanes = [a for a in lanes if not any(b != a and b[0] >= a[0] and b[1] <= a[1] for b in lanes)]
    return min(
        sum(cost for _, cost in chosen)
        for count in range(1, 6)
        for chosen in itertools.combinations_with_replacement(lanes, count)
        if sum(rate for rate, _ in chosen) >= TARGET - 1e-9
    )


@pytest.mark.parametrize("seed", range(6))
def test_no_stage_is_cheaper(seed):
    rng = np.random.default_rng(seed)
    groups = groups_of_two_kinds(rng)
    prices = rng.uniform(0.1, 1.0, 2)
    stages = list(StagePricing(groups, TARGET, LAYERS).cheapest(prices))
    assert [s.length for s in stages] == [1, 2, 3, 4]
    for stage in stages:
        assert stage.rate >= TARGET * (1 - 1e-9)
        assert all(sum(k for _, k in lane) == stage.length for lane in stage.lanes)
        assert float(np.dot(stage.uses, prices)) == pytest.approx(least_cost(groups, stage.length, prices))


def test_slow_links_leave_lanes_of_single_nodes():
    """A lane of two nodes would pass 60 tokens/s over a link of 10, so each lane is one node."""
    groups = [Group("L4", "", tuple("abcdef"), (60.0, 20.0))]
    wide, narrow = (
        {s.length: s for s in StagePricing(groups, 60.0, 2, link_cap=cap).cheapest(np.ones(1))} for cap in (100.0, 10.0)
    )
    assert wide[2].lanes == (((0, 1), (0, 1)),)
    assert narrow[2].lanes == (((0, 2),),) * 3


def test_lanes_carry_no_more_than_the_cap_and_only_usable_groups_are_used():
    groups = [Group("A", "", tuple("abcdef"), (60.0,)), Group("B", "", tuple("uvwxyz"), (60.0,))]
    (stage,) = StagePricing(groups, 60.0, 1, usable_groups=[1], lane_cap=20.0).cheapest(np.array([0.1, 1.0]))
    assert stage.uses == (0, 3)


def test_two_cheap_nodes_in_a_row_do_not_take_the_place_of_one_that_links_allow():
    """Two nodes of A in a row would cost less than one of B, but pass 20 tokens/s over a link of 10."""
    groups = [Group("A", "", tuple("abcdef"), (60.0,)), Group("B", "", tuple("uvw"), (60.0, 20.0))]
    stages = {s.length: s for s in StagePricing(groups, 60.0, 2, link_cap=10.0).cheapest(np.array([0.1, 1.0]))}
    assert stages[2].lanes == (((1, 2),),) * 3


@pytest.mark.parametrize("seed", range(4))
def test_compiled_costs_are_those_of_arrays_to_the_last_bit(seed):
    rng = np.random.default_rng(seed)
    weights = np.sort(rng.integers(1, 80, 9))[::-1].copy()
    costs = np.where(rng.random((9, 5)) < 0.3, np.inf, rng.uniform(0.01, 2.0, (9, 5)))
    compiled, arrays = (costs_of(costs, weights, 63) for costs_of in (stage_kernel.cover_costs, cover_costs_of_arrays))
    assert compiled.tobytes() == arrays.tobytes()
    assert (np.diff(arrays, axis=1)[np.isfinite(arrays[:, 1:])] >= 0).all(), "more flow costs no less"
