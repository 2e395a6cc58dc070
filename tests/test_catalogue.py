"""The GPU catalogue: known kinds are there, each figure has a source."""

from __future__ import annotations

from helix_kit.catalogue import gpu_links, gpus


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


def test_every_gpu_has_a_link_with_a_source():
    for gpu in (*gpus(), "a GPU of one's own"):
        links = gpu_links(gpu)
        assert links and set(links) <= {"nvlink", "pcie"} and "pcie" in links
        assert all(link.source and link.bandwidth_gbps > 0 and link.latency_ms > 0 for link in links.values())
        if "nvlink" in links:
            assert links["nvlink"].bandwidth_gbps > links["pcie"].bandwidth_gbps
    assert next(iter(gpu_links("H100-80G"))) == "nvlink" and list(gpu_links("L4")) == ["pcie"]
    assert gpu_links("H100-80G")["nvlink"].bytes_per_s < 450e9, "NVLink 4 carries 900 GB/s, both directions together"
