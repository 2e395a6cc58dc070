"""The GPU catalogue: known kinds are there, each figure has a source."""

from __future__ import annotations

import re

import pytest

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
        "RTX5090",
        "RTXPro6000",
        "A6000",
        "L40",
        "L40S",
        "GH200-96G",
        "B200",
        "MI300X",
        "M3Ultra-512G",
    } <= set(gpus())
    for gpu in gpus().values():
        assert gpu.source and min(gpu.memory_gb, gpu.memory_bandwidth_gb_per_s, gpu.fp16_tflops) > 0


def test_every_gpu_that_is_rented_has_a_price_with_seller_and_day():
    rented = [g for g in gpus().values() if g.unified_memory_gb is None and not g.name.startswith("CPU-")]
    for gpu in [*rented, gpus()["M4-32G"], gpus()["M4Pro-64G"]]:
        assert gpu.price_usd_per_hour and gpu.price_usd_per_hour == gpu.price.of("on_demand") > 0
        assert re.match(r".+, 20\d\d(-\d\d-\d\d)?: .+", gpu.price.source), gpu.price.source
        for payment in ("reserved", "spot"):
            assert gpu.price.of(payment) is None or gpu.price.of(payment) < gpu.price_usd_per_hour
    assert all(gpu.tdp_w for gpu in rented)


def test_power_is_linear_between_idle_and_the_tdp():
    a100, t4 = gpus()["A100-80G"], gpus()["T4"]
    assert [a100.power_w(u) for u in (0, 0.5, 1, 3)] == [62, 231, 400, 400]
    assert t4.power_w(0) == pytest.approx(10.5) and t4.power_w(1) == 70  # 15 % of 70 W: no reading is known
    assert gpus()["CPU-fast"].power_w(1) is None


def test_unified_memory_counts_by_the_share_that_the_gpu_may_take():
    shares = {g.name: g.memory_gb / g.unified_memory_gb for g in gpus().values() if g.unified_memory_gb}
    assert shares.pop("M4-32G") == pytest.approx(2 / 3, abs=0.01) and set(shares.values()) == {0.75}


def test_every_gpu_has_a_link_with_a_source():
    for gpu in (*gpus(), "a GPU of one's own"):
        links = gpu_links(gpu)
        assert links and set(links) <= {"nvlink", "xgmi", "pcie"} and "pcie" in links
        assert all(link.source and link.bandwidth_gbps > 0 and link.latency_ms > 0 for link in links.values())
        if "nvlink" in links:
            assert links["nvlink"].bandwidth_gbps > links["pcie"].bandwidth_gbps
    assert next(iter(gpu_links("H100-80G"))) == "nvlink" and list(gpu_links("L4")) == ["pcie"]
    assert gpu_links("H100-80G")["nvlink"].bytes_per_s < 450e9, "NVLink 4 carries 900 GB/s, both directions together"


def test_a_link_to_each_other_gpu_counts_as_often_as_there_are_others():
    """Infinity Fabric of MI300X: 128 GB/s a link in both directions, 7 links, 896 GB/s in all by the data sheet."""
    fabric, nvlink = next(iter(gpu_links("MI300X").values())), gpu_links("H100-80G")["nvlink"]
    assert fabric.name == "xgmi" and fabric.bytes_per_s < 64e9 and 0.7 * 448e9 < fabric.bytes_per_s_among(8) < 448e9
    assert [fabric.bytes_per_s_among(n) / fabric.bytes_per_s for n in (1, 2, 4, 8, 16)] == [1, 1, 3, 7, 7]
    assert nvlink.bytes_per_s_among(8) == nvlink.bytes_per_s_among(2) == nvlink.bytes_per_s
