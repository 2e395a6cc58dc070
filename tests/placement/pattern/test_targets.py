"""The search over targets, on a stand-in for the pattern program."""

import pytest

from helix_kit.placement.pattern.search import Candidate
from helix_kit.placement.pattern.targets import search_flow
from helix_kit.placement.watch import Watch


class Steps:
    """Stands for a `PatternSearch` that finds stages up to a limit, and records the targets."""

    def __init__(self, limit, is_thorough=False):
        self.limit, self.targets, self.watch, self.is_thorough = limit, [], Watch(60), is_thorough

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


def test_a_thorough_search_looks_between_what_is_reached_and_the_bound():
    search = Steps(99.2, is_thorough=True)
    found = search_flow(search, 100.0, lambda target: Candidate(target, {}), low=98.9)
    assert found.tokens_per_s == pytest.approx(99.2, rel=3e-4)


def test_a_thorough_search_tries_targets_above_one_whose_placement_carries_less():
    """Links let through half of each target below 97 tokens/s, and all of a higher one."""
    search = Steps(99.0, is_thorough=True)
    found = search_flow(search, 100.0, lambda target: Candidate(target if target > 97 else target / 2, {}), low=60.0)
    assert found.tokens_per_s == pytest.approx(99.0, rel=3e-4)
