"""Curves and profiles: interpolation, limits beyond the table, refusals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helix_kit.profiles import Curve, shipped_profiles


@given(st.floats(0, 500))
def test_curves_interpolate_like_numpy(at):
    curve = shipped_profiles("llama2-70b")["T4"].decode_ms_per_layer
    assert curve(at) == pytest.approx(float(np.interp(at, curve.x, curve.y)), abs=1e-12)


def test_curves_continue_with_the_last_slope():
    curve = Curve(x=(0, 10, 20), y=(0, 1, 3))
    assert curve(30) == pytest.approx(5)


@pytest.mark.parametrize(
    ("x", "y", "words"), [((0, 1, 1), (0, 1, 2), "increasing"), ((0, 1), (0,), "got 2 x and 1 y"), ((0,), (0,), "two")]
)
def test_points_that_make_no_function_are_refused(x, y, words):
    with pytest.raises(ValueError, match=words):
        Curve(x=x, y=y)


def test_a_machine_with_more_layers_than_its_maximum_keeps_the_last_limits():
    profile = shipped_profiles("llama2-70b")["T4"]
    k = profile.max_layers
    for limit in (profile.kv_capacity, profile.prefill_limit, profile.decode_limit):
        assert limit(k + 5) == limit(k)


def test_limits_of_unequal_length_are_refused():
    profile = shipped_profiles("llama2-70b")["T4"]
    with pytest.raises(ValueError, match="equal length"):
        type(profile).model_validate({**profile.model_dump(), "decode_max_requests": (1,)})
