"""Pins are kept, also under a cap on depth, and pins that cannot be kept are refused with a reason."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import helix_kit as hk
from helix_kit.errors import InfeasibleError, InputError
from helix_kit.flow import longest_path

KNOWN = {10: 1063, 12: 1392, 14: 1515, 20: 1754}
"""Cap on depth -> tokens/s known to be reached without pins."""


def test_pins_are_kept():
    pins = {"A100-40G-0": (0, 12), "T4-0": (76, 80), "L4-1": (33, 40)}
    plan = hk.plan("single24", "llama2-70b", pins=pins, patience_s=0.3, deterministic=True)
    assert {n: plan.placement[n] for n in pins} == pins
    free = hk.plan("single24", "llama2-70b")
    assert 0.7 * free.flow_tokens_per_s < plan.flow_tokens_per_s <= free.flow_tokens_per_s


@pytest.mark.parametrize("split", ["balanced", "any"])
@pytest.mark.parametrize("cap", [10, 12, 14, 20])
def test_pins_and_a_depth_cap_together(cap, split):
    pins = {"A100-40G-0": (0, 12), "T4-0": (76, 80), "L4-1": (33, 40)}
    plan = hk.plan("single24", "llama2-70b", pins=pins, max_stages=cap, flow_split=split)
    assert {n: plan.placement[n] for n in pins} == pins
    assert max(len(path) for path, _ in plan.pipelines) <= cap
    assert longest_path(plan.max_flow, plan.placement) <= cap
    # Pins cost some of what the cap alone leaves.
    assert 0.6 * KNOWN[cap] < plan.flow_tokens_per_s <= plan.bound_tokens_per_s


def test_pins_that_need_more_stages_say_how_many():
    few = {"A100-40G-0": (0, 2)}
    # Seven nodes if all held twelve layers; in truth the pin (2), three A100 (36) and six L4 (42).
    for cap, text in ((6, "pass at least 7 nodes"), (9, "no plan was found")):
        with pytest.raises(InfeasibleError, match=text) as error:
            hk.plan("single24", "llama2-70b", pins=few, max_stages=cap)
        assert error.value.fix == "allow 10 stages"
    needed = int(error.value.fix.split()[1])
    assert max(len(p) for p, _ in hk.plan("single24", "llama2-70b", pins=few, max_stages=needed).pipelines) <= needed


@settings(max_examples=8, deadline=None)
@given(st.data())
def test_random_pins_are_kept_or_refused(data):
    names = data.draw(st.lists(st.sampled_from([f"L4-{i}" for i in range(8)]), min_size=1, max_size=3, unique=True))
    pins = {}
    for name in names:
        size = data.draw(st.integers(1, 7))
        start = data.draw(st.integers(0, 80 - size))
        pins[name] = (start, start + size)
    plan = hk.plan("single24", "llama2-70b", pins=pins, time_limit_s=1, deterministic=True)
    assert {n: plan.placement[n] for n in pins} == pins
    assert plan.flow_tokens_per_s > 500


def test_pinning_the_optimum_gives_the_optimum():
    free = hk.plan("single24", "llama2-70b")
    some = dict(list(free.placement.items())[::3])
    assert hk.plan("single24", "llama2-70b", pins=some, patience_s=0.3).flow_tokens_per_s == free.flow_tokens_per_s


@pytest.mark.parametrize(
    ("pins", "error", "text"),
    [
        ({"T4-0": (0, 6)}, InfeasibleError, "at most 4"),
        ({"T4-99": (0, 4)}, InputError, "unknown node"),
        ({"T4-0": (78, 82)}, InputError, "expected 0 <= start < end <= 80"),
        (
            {f"A100-40G-{i}": (0, 12) for i in range(4)} | {f"L4-{i}": (0, 7) for i in range(8)},
            InfeasibleError,
            "leave 68 layers",
        ),
    ],
)
def test_contradictory_pins(pins, error, text):
    with pytest.raises(error, match=text):
        hk.plan("single24", "llama2-70b", pins=pins, patience_s=0.3)
