"""A link's slider, number and latency: the number is exact, and echoes of the slider change nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helix_kit.cluster import Link
from helix_kit.widgets.link_field import LOG_STEP, LinkField


def rounded_as_a_browser_does(value: float) -> float:
    """A browser keeps the position in whole steps from the slider's start."""
    import math

    return 10 ** (-3 + round((math.log10(value) + 3) / LOG_STEP) * LOG_STEP)


@given(st.floats(0.001, 1000.0))
def test_the_echo_of_a_slider_changes_nothing(gbps):
    field = LinkField("links", 1.0, 1.0)
    events = []
    field.show(Link(bandwidth_gbps=gbps, latency_ms=3.0))
    field.gbps.observe(events.append, "value")
    field.slider.set_state({"value": rounded_as_a_browser_does(gbps)})
    assert events == [] and field.values == (gbps, 3.0)


def test_a_step_of_the_slider_sets_the_number_and_back_again():
    field = LinkField("links", 0.2, 30.0)
    field.slider.set_state({"value": 0.2 * 10**LOG_STEP})
    assert field.gbps.value == pytest.approx(0.2047, abs=0.0005)
    field.slider.set_state({"value": 0.2})
    assert field.gbps.value == 0.2


@pytest.mark.parametrize("gbps", [4000.0, 0.0001, 1000.0, 0.001])
def test_values_beyond_the_slider_are_kept(gbps):
    field = LinkField("links", 1.0, 1.0)
    field.gbps.value = gbps
    field.slider.set_state({"value": min(1000.0, max(0.001, gbps))})
    assert field.link() == Link(bandwidth_gbps=gbps, latency_ms=1.0)
    field.slider.value = 10.0
    assert field.gbps.value == 10.0


def test_a_small_typed_change_counts():
    field = LinkField("links", 0.2, 30.0)
    field.gbps.value = 0.2001
    assert field.link().bandwidth_gbps == 0.2001
