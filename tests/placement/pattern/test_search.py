"""The search over targets, and the stages kept for a chain of regions."""

import pytest

from helix_kit.placement.groups import Group
from helix_kit.placement.pattern.search import Candidate, PatternSearch, search_flow
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


class Steps:
    """Stands for a `PatternSearch` that finds stages up to a limit, and records the targets."""

    def __init__(self, limit):
        self.limit, self.targets, self.watch = limit, [], Watch(60)

    def attempt(self, target):
        self.targets.append(target)
        return target if target <= self.limit else None


@pytest.mark.parametrize("limit", [100.0, 99.97, 93.0, 42.0, 3.5])
def test_the_search_ends_close_to_what_is_feasible(limit):
    """Stages are found for targets up to the limit, and carry just the target."""
    search = Steps(limit)
    found = search_flow(search, 100.0, lambda target: Candidate(target, {}))
    assert limit * (1 - 3e-4) <= found.tokens_per_s <= limit
    assert search.targets[0] == 100.0


def test_what_is_reached_already_is_not_tried_again():
    search = Steps(50.0)
    assert search_flow(search, 100.0, lambda target: Candidate(target, {}), low=60.0) is None
    assert min(search.targets) > 60.0


def test_the_flow_of_a_placement_counts_not_the_target():
    """Links let through half of each target: the best placement is kept, and halving ends."""
    search = Steps(80.0)
    found = search_flow(search, 100.0, lambda target: Candidate(target / 2, {}))
    assert found.tokens_per_s == pytest.approx(max(t for t in search.targets if t <= 80.0) / 2)


def test_a_coarse_search_near_the_bound_halves_at_once():
    search = Steps(91.0)
    found = search_flow(search, 100.0, lambda target: Candidate(target, {}), low=80.0, precision=0.004)
    assert search.targets[:2] == [90.0, 95.0]
    assert found.tokens_per_s == pytest.approx(91.0, rel=0.005)


@pytest.mark.parametrize("nodes", [4, 5])
def test_one_region_is_covered_with_as_much_flow_as_its_nodes_allow(nodes):
    """Four layers, one for each node at 100 tokens/s: a fifth node helps no layer, and two a layer are not there."""
    groups = [Group("L4", "", tuple(map(str, range(nodes))), (100.0,))]
    assert PatternSearch(groups, 4, Watch(20)).attempt(100.0) is not None
    assert PatternSearch(groups, 4, Watch(20)).attempt(100.1) is None
