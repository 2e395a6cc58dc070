"""The search over targets, and the stages kept for a chain of regions."""

import pytest

from helix_kit.placement.groups import Group
from helix_kit.placement.pattern.search import PatternSearch
from helix_kit.placement.pattern.stages import PatternStage
from helix_kit.placement.watch import Watch


def test_a_fast_machine_may_stand_at_a_crossing():
    """F is 40 and a link carries 4, so shares at crossings are at most sqrt(0.1) = 0.32.

    A lane of 20 tokens/s beside three of 10 need not carry more than 10, a share of 0.25.
    """
    sizes = {"fast": (1, (20.0,)), "slow": (3, (10.0,))}
    groups = [
        Group(kind, region, tuple(f"{kind}-{region}-{i}" for i in range(size)), table)
        for region in ("east", "west")
        for kind, (size, table) in sizes.items()
    ]
    mixed = [PatternStage.of(1, [((g, 1),), *[((g + 1, 1),)] * 3], groups) for g in (0, 2)]
    search = PatternSearch(groups, 2, Watch(20), crossing_tokens_per_s=4.0, stages={s.lanes: s for s in mixed})
    chain = search.attempt(40.0)
    assert chain is not None
    assert sorted(groups[stage.any_group].region for part in chain for stage in part) == ["east", "west"]


@pytest.mark.parametrize("nodes", [4, 5])
def test_one_region_is_covered_with_as_much_flow_as_its_nodes_allow(nodes):
    """Four layers, one for each node at 100 tokens/s: a fifth node helps no layer, and two a layer are not there."""
    groups = [Group("L4", "", tuple(map(str, range(nodes))), (100.0,))]
    assert PatternSearch(groups, 4, Watch(20)).attempt(100.0) is not None
    assert PatternSearch(groups, 4, Watch(20)).attempt(100.1) is None
