"""Caps on depth are kept and pay, and a placement is found even without time to search."""

import pytest

import helix_kit as hk
from helix_kit.errors import InfeasibleError
from helix_kit.placement.groups import Group
from helix_kit.placement.pattern.method import one_chain

KNOWN = {10: 1063, 12: 1392, 14: 1515, 20: 1754}
"""Cap on depth -> tokens/s known to be reached."""


@pytest.mark.parametrize("cap", [9, 10, 12, 14, 20])
def test_depth_cap_is_kept_and_pays(cap):
    plan = hk.plan("single24", "llama2-70b", max_stages=cap, deterministic=True)
    assert max(len(path) for path, _ in plan.pipelines) <= cap
    assert plan.flow_tokens_per_s >= KNOWN.get(cap, 900)


def test_more_depth_never_hurts():
    values = [hk.plan("hetero42", "llama2-70b", max_stages=d).flow_tokens_per_s for d in (8, 12, 20)]
    assert values == sorted(values)


def test_too_few_stages_say_how_many_are_needed():
    with pytest.raises(InfeasibleError) as error:
        hk.plan("single24", "llama2-70b", max_stages=8)
    assert error.value.fix == "allow 9 stages"
    assert hk.plan("single24", "llama2-70b", max_stages=9).flow_tokens_per_s > 0


def test_one_chain_takes_the_fastest_or_the_largest_first():
    groups = [Group("fast", "", ("f0", "f1"), (90.0, 80.0)), Group("large", "", ("l0",), (50.0, 45.0, 40.0, 35.0))]
    assert one_chain(groups, 5) == {"f0": (0, 2), "f1": (2, 4), "l0": (4, 5)}
    assert one_chain(groups, 5, largest_first=True) == {"l0": (0, 4), "f0": (4, 5)}
    with pytest.raises(InfeasibleError, match="no placement carries any flow"):
        one_chain([groups[0], Group("idle", "", ("i0",), (0.0, 0.0))], 5)


def test_a_plan_is_found_without_time_to_search():
    """The watch is over at once: the best of a single chain and the baselines is returned."""
    plan = hk.plan("geo24", "llama2-70b", time_limit_s=1e-3)
    petals = hk.plan("geo24", "llama2-70b", method="petals", seed=plan.seed)
    assert plan.flow_tokens_per_s >= petals.flow_tokens_per_s > 0
