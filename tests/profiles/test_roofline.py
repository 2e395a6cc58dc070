"""The roofline estimate: near the measured tables, zero layers where none fits, more of everything with more GPUs."""

from __future__ import annotations

import pytest

from helix_kit.cluster import Node
from helix_kit.model import Model
from helix_kit.profiles import estimate, shipped_profiles


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


def test_two_gpus_hold_twice_the_layers_and_decode_large_batches_faster():
    one, two = (estimate(Node(name="n", gpu="L4", gpus_per_node=n), Model.preset("llama2-70b")) for n in (1, 2))
    assert two.max_layers in (2 * one.max_layers, 2 * one.max_layers + 1)
    assert two.decode_ms_per_layer(512) < one.decode_ms_per_layer(512)
    assert two.kv_capacity(1) > 2 * one.kv_capacity(1), "both hold the one layer's weights once"
