"""The GPU catalogue: known kinds are there, each figure has a source."""

from __future__ import annotations

from helix_kit.catalogue import gpus


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
