"""The roofline of a step, by hand."""

from __future__ import annotations

import pytest

from helix_kit.catalogue import gpus
from helix_kit.model import Model
from helix_kit.runtime.profile_steps import DeviceSpeed, Step, ratio_facts, roofline_ms, speed_of

MODEL = Model(name="t", num_layers=2, hidden_size=64, num_heads=4, num_kv_heads=2, intermediate_size=128, vocab_size=10)
# Queries and outputs 64 x 64, keys and values 64 x 32, three matrices of the MLP, two norms; 2 bytes each.
PARAMS = 2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128


def test_reading_counts_weights_once_and_all_context():
    speed = DeviceSpeed(bytes_per_s=1e6, flops_per_s=1e30, launch_ms=0.5, source="given")
    # A prompt of 8 tokens reads 8 of them, 4 requests read 10 and their own; each has 2 x 2 heads x 16 x 2 bytes.
    read = MODEL.layer_gb * 1e9 + (8 + 4 * 11) * 128
    assert roofline_ms(MODEL, Step(8, 4, 10), speed) == pytest.approx(read / 1e3 + 0.5)


def test_arithmetic_counts_matrices_and_attention():
    speed = DeviceSpeed(bytes_per_s=1e30, flops_per_s=1e6, launch_ms=0.0, source="given")
    # Each row takes two operations a parameter, each pair of query and key 4 in each of 4 heads of 16.
    operations = 2 * MODEL.layer_params * 12 + 4 * 64 * (8 * 9 / 2 + 4 * 11)
    assert MODEL.layer_params == pytest.approx(PARAMS, rel=0.01)
    assert roofline_ms(MODEL, Step(8, 4, 10), speed) == pytest.approx(operations / 1e3)


def test_a_gpu_of_the_catalogue_has_a_share_of_its_datasheet():
    speed = speed_of("cuda:0", "float16", "L40S")
    assert speed.bytes_per_s < gpus()["L40S"].memory_bandwidth_gb_per_s * 1e9
    assert speed.launch_ms > 0


def test_facts_of_nothing_are_refused():
    with pytest.raises(ValueError):
        ratio_facts([])
