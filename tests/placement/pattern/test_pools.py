"""Stages of nodes that several regions have left over."""

import numpy as np
import pytest

from helix_kit.placement.groups import Group
from helix_kit.placement.pattern.pools import Pools
from helix_kit.placement.pattern.search import PatternSearch
from helix_kit.placement.pattern.stages import PatternStage
from helix_kit.placement.watch import Watch


def three_in_each_of(*regions):
    return [Group("L4", region, tuple(f"{region}-{i}" for i in range(3)), (50.0,)) for region in regions]


@pytest.mark.parametrize(("crossing", "feasible"), [(25.0, True), (24.0, False)])
def test_what_two_regions_have_left_makes_a_stage(crossing, feasible):
    """A stage of 100 tokens/s takes two nodes of 50. Each region fills one and has a node left; a link between two of
    them is asked for 25."""
    groups = three_in_each_of("east", "west")
    chain = PatternSearch(groups, 3, Watch(20), crossing_tokens_per_s=crossing, is_thorough=True).attempt(100.0)
    assert (chain is not None) == feasible
    if chain is not None:
        used = [g for part in chain for stage in part for lane in stage.lanes for g, _ in lane]
        assert sorted(used) == [0, 0, 0, 1, 1, 1]


def test_nodes_of_pools_are_settled_where_they_are_left():
    groups = three_in_each_of("east", "west")
    pools = Pools(groups)
    own = pools.count(PatternStage.of(1, [((0, 1),)] * 2, pools.planned))
    mixed = pools.count(PatternStage.of(1, [((2, 1),)] * 4, pools.planned))
    assert (own.uses, mixed.uses) == ((2, 0, 2), (0, 0, 4))
    ((east,), (both,)) = pools.settle([[own], [mixed]])
    assert east.uses == (2, 0) and both.uses == (1, 3)


def test_a_node_of_a_region_costs_what_its_pool_does_besides():
    pools = Pools(three_in_each_of("east", "west"))
    assert pools.prices(np.array([0.1, 0.2, 0.5, 9.0])).tolist() == pytest.approx([0.6, 0.7, 0.5])


def test_without_pools_groups_are_planned_as_they_are():
    groups = three_in_each_of("east", "west")
    assert Pools(groups, is_used=False).planned == groups
