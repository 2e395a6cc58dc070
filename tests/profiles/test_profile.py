"""Curves, tables and the roofline estimate."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helix_kit.cluster import Node
from helix_kit.errors import InputError
from helix_kit.model import Model
from helix_kit.profiles import Curve, estimate, gpus, load_profiles, shipped_profiles


@given(st.floats(0, 500))
def test_curves_interpolate_like_numpy(at):
    curve = shipped_profiles("llama2-70b")["T4"].decode_ms_per_layer
    assert curve(at) == pytest.approx(float(np.interp(at, curve.x, curve.y)), abs=1e-12)


def test_curves_go_on_with_the_last_slope():
    curve = Curve(x=(0, 10, 20), y=(0, 1, 3))
    assert curve(30) == pytest.approx(5)


def test_every_catalogue_row_has_a_source_and_positive_figures():
    assert {
        "T4",
        "V100-16G",
        "L4",
        "A10G",
        "A100-40G",
        "A100-80G",
        "H100-80G",
        "H200-141G",
        "RTX3090",
        "RTX4090",
    } <= set(gpus())
    for gpu in gpus().values():
        assert gpu.source and min(gpu.memory_gb, gpu.memory_bandwidth_gb_per_s, gpu.fp16_tflops) > 0


@pytest.mark.parametrize("model", ["llama2-70b", "llama-30b"])
@pytest.mark.parametrize("kind", ["A100-40G", "V100-16G", "L4", "T4", "L4x2", "T4x2", "T4x4"])
def test_roofline_is_near_the_measured_tables(model, kind):
    """An estimate is honest when it is within a factor of two of every measured machine."""
    gpu, _, n = kind.partition("x")
    measured = shipped_profiles(model)[kind]
    guessed = estimate(Node(name="n", gpu=gpu, gpus_per_node=int(n or 1)), Model.preset(model))
    for curve, points in (("prefill_ms_per_layer", (750, 2000)), ("decode_ms_per_layer", (8, 32, 100))):
        for at in points:
            ratio = getattr(guessed, curve)(at) / getattr(measured, curve)(at)
            assert 0.5 < ratio < 1.6, (curve, at, ratio)
    assert guessed.max_layers >= measured.max_layers  # the published limit leaves half the memory to KV


def test_a_gpu_too_small_for_one_layer_holds_none():
    big = Model.preset("llama2-70b").model_copy(update={"layer_gb": 30.0})
    assert estimate(Node(name="n", gpu="T4"), big).max_layers == 0


@pytest.mark.parametrize(
    ("file", "find", "replace", "expected"),
    [
        ("layer_times.csv", "T4,decode,2,7.1", "T4,decode,2,soon", "ms_per_layer = 'soon'"),
        ("layer_times.csv", "T4,decode,2,7.1", "T4,both,2,7.1", "phase = 'both'"),
        ("layer_times.csv", "T4,decode,2,7.1", "T4,decode,2,-7.1", "greater than or equal to 0"),
        ("limits.csv", "T4,2,", "T4,9,", "without gaps"),
        ("limits.csv", "kind,", "sort,", "columns"),
    ],
)
def test_bad_tables(tmp_path, file, find, replace, expected):
    from helix_kit._files import data_dir

    for name in ("layer_times.csv", "limits.csv"):
        text = (data_dir() / "profiles" / "llama2-70b" / name).read_text()
        if name == file:
            assert find in text
            text = text.replace(find, replace, 1)
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as caught:
        load_profiles(tmp_path)
    assert expected in str(caught.value)
