"""The roofline estimate: near the measured tables, zero layers where none fits, more of everything with more GPUs."""

from __future__ import annotations

import pytest

from helix_kit.catalogue import GpuLink, gpu_links
from helix_kit.cluster import Cluster, Node
from helix_kit.layers import LayerKind
from helix_kit.model import Model
from helix_kit.profiles import estimate, profiles_for, shipped_profiles
from helix_kit.profiles.roofline import all_reduce_ms


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
    assert one.max_layers > 0
    assert two.decode_ms_per_layer(512) < one.decode_ms_per_layer(512)
    assert two.kv_capacity(1) > 2 * one.kv_capacity(1), "both hold the one layer's weights once"


@pytest.mark.parametrize("gpus", [1, 2, 3, 4, 8])
def test_an_all_reduce_takes_as_long_as_a_ring_that_is_played_step_by_step(gpus):
    """Each GPU holds one part of the result a GPU; in every step it sends one part to its neighbour."""
    message, link = 24e6, GpuLink("given", bandwidth_gbps=160, latency_ms=0.004, source="by hand")
    parts = [[{gpu} for _ in range(gpus)] for gpu in range(gpus)]
    """parts[g][p]: GPUs whose share of part p is in what g holds."""
    took_ms = 0.0
    while any(part != set(range(gpus)) for held in parts for part in held):
        step = round(took_ms / (0.004 + 1e3 * message / gpus / 20e9)) if took_ms else 0
        sent = [((g - step) % gpus, parts[g][(g - step) % gpus]) for g in range(gpus)]
        for g, (p, content) in enumerate(sent):
            parts[(g + 1) % gpus][p] = parts[(g + 1) % gpus][p] | content
        took_ms += 0.004 + 1e3 * message / gpus / 20e9
    assert all_reduce_ms(message, gpus, link) == pytest.approx(took_ms)


@pytest.mark.parametrize(("kind", "one", "gpus"), [("L4x2", "L4", 2), ("T4x2", "T4", 2), ("T4x4", "T4", 4)])
@pytest.mark.parametrize("model", ["llama2-70b", "llama-30b"])
def test_more_gpus_change_a_measured_step_as_the_catalogues_link_says(model, kind, one, gpus):
    """A step of n GPUs: 1/n of the measured step of one, and two all-reduces of the activations (16 bits)."""
    measured, width = shipped_profiles(model), Model.preset(model).hidden_size
    link = gpu_links(one)["pcie"]
    for phase, sizes in (("prefill_ms_per_layer", (256, 750, 2000)), ("decode_ms_per_layer", (8, 32, 100))):
        for tokens in sizes:
            alone_ms = (getattr(measured[one], phase)(tokens) - 0.1) / gpus + 0.1
            steps = 2 * (gpus - 1)
            sent_ms = steps / gpus * tokens * width * 2 / (link.bandwidth_gbps / 8 * 1e9) * 1e3
            step_ms = alone_ms + 2 * (steps * link.latency_ms + sent_ms)
            assert step_ms == pytest.approx(getattr(measured[kind], phase)(tokens), rel=0.2)


def test_four_h100_decode_llama_70b_as_fast_as_an_engine_does():
    """vLLM and others take 0.02 to 0.04 s a token on four H100 with NVLink; weights alone are 10 ms at the peak."""
    model = Model.preset("llama3.1-70b")
    found = estimate(Node(name="n", gpu="H100-80G", gpus_per_node=4), model)
    for batch in (1, 8, 32):
        assert 0.02 < 80 * found.decode_ms_per_layer(batch) / 1e3 < 0.04
    weights_ms = 1e3 * model.layer_gb * 1e9 / (4 * 3.35e12 * 0.7)
    all_reduces_ms = 2 * (6 * 0.0019 + 1e3 * 1.5 * 16384 / 370.75e9)
    assert found.decode_ms_per_layer(1) == pytest.approx(
        weights_ms + 1e3 * 1000 * 4096 / (4 * 3.35e12 * 0.7) + 0.1 + all_reduces_ms, rel=1e-6
    )


def test_a_slower_link_between_gpus_slows_long_prompts_and_single_tokens():
    nodes = [
        {"gpu": "A100-80G", "gpus_per_node": 8, "gpu_link": link, "tensor_parallel": 8}
        for link in ("nvlink", "pcie", {"bandwidth_gbps": 20, "latency_ms": 0.05})
    ]
    cluster = Cluster.model_validate({"name": "links", "nodes": nodes})
    by_kind = profiles_for(cluster, Model.preset("llama3.1-70b"))
    fast, slow, slowest = by_kind.values()
    assert list(by_kind) == [f"A100-80Gx8-{link}-tp8" for link in ("nvlink", "pcie", "20gbps-0.05ms")]
    for curve, at in (("prefill_ms_per_layer", 4096), ("decode_ms_per_layer", 1)):
        assert getattr(fast, curve)(at) < getattr(slow, curve)(at) < getattr(slowest, curve)(at)
    assert fast.kv_capacity_layer_tokens == slow.kv_capacity_layer_tokens
    assert "nvlink between 8 GPUs: NCCL" in fast.source


def test_a_layer_with_experts_reads_those_it_meets_and_computes_with_those_a_token_takes():
    """By hand from the sizes: Mixtral has 8 experts of 3 x 4096 x 14336, of which each token takes 2."""
    model, a100 = Model.preset("mixtral-8x7b"), Node(name="a", gpu="A100-80G")
    expert, rest = 3 * 4096 * 14336, 2 * 4096 * 4096 + 2 * 4096 * 1024 + 8 * 4096 + 2 * 4096
    profile = estimate(a100, model)
    for requests in (1, 4):
        met = 8 * (1 - 0.75**requests)
        read = 2 * (rest + met * expert) + requests * 1000 * 2 * 8 * 128 * 2
        assert profile.decode_ms_per_layer(requests) == pytest.approx(1e3 * read / (2039e9 * 0.7) + 0.1)
    flops = 2 * 4096 * (rest + 2 * expert)
    assert profile.prefill_ms_per_layer(4096) == pytest.approx(1e3 * flops / (312e12 * 0.5) + 0.1)
    skewed = estimate(a100, model.model_copy(update={"expert_skew": 1.5}))
    assert skewed.decode_ms_per_layer(4) < profile.decode_ms_per_layer(4)


def test_low_bit_weights_are_computed_at_the_rate_of_their_type():
    """fp8 is computed as such on an H100, and as 16 bits on an A100, which has no units for it."""
    kind = LayerKind(name="k", kv_bytes_per_token=4, params=10**9, weight_bytes=1e9, arithmetic="fp8")
    sizes = {"num_layers": 4, "hidden_size": 64, "num_heads": 4, "intermediate_size": 128, "vocab_size": 100}
    model = Model(name="m", layer_kinds=(kind,), **sizes)
    for gpu, tflops in (("H100-80G", 1979), ("A100-80G", 312)):
        profile = estimate(Node(name="a", gpu=gpu), model)
        assert profile.prefill_ms_per_layer(8192) == pytest.approx(
            1e3 * 2 * 8192e9 / (tflops * 1e12 * 0.5) + 0.1, rel=1e-6
        )


PUBLISHED = [
    # tt-inference-server, issue 340: vLLM, one request of 128 tokens, milliseconds a token.
    ("qwen3-30b-a3b", "A100-80G", 1, 9.6),
    # runaihome.com, gpt-oss-20b guide of 2026: 225 tokens/s.
    ("gpt-oss-20b", "RTX4090", 1, 1e3 / 225),
    # achatbot, pull request 183: SGLang, 32 requests at a time, 2765 output tokens/s, prompts included.
    ("gpt-oss-20b", "H100-80G", 32, 32e3 / 2765),
    # silybench-data, run of 2026-09-24: vLLM, 512 chats of 128 + 128 tokens, 14,540 tokens/s.
    ("qwen3-8b", "H100-80G", 512, 512e3 / 14540),
]


@pytest.mark.parametrize(("model", "gpu", "requests", "published_ms"), PUBLISHED)
def test_estimates_are_near_published_figures_of_one_gpu(model, gpu, requests, published_ms):
    """Within a factor of 1.6: engines differ by as much."""
    described = Model.preset(model)
    profile = estimate(Node(name="a", gpu=gpu), described)
    estimated = described.num_layers * profile.decode_ms_per_layer(requests)
    assert 1 / 1.6 < estimated / published_ms < 1.6 and profile.source.startswith("roofline estimate")


def test_ranges_of_unequal_layers_have_their_own_times_and_memory():
    """DeepSeek-V3 begins with three dense layers, which are smaller and faster than those with experts."""
    model = Model.preset("deepseek-v3")
    profile = estimate(Node(name="a", gpu="H100-80G"), model)
    dense, experts = profile.of_range(0, 3), profile.of_range(3, 6)
    mixed = profile.of_range(2, 4)
    for curve in ("prefill_ms_per_layer", "decode_ms_per_layer"):
        fast, slow = getattr(dense, curve)(64), getattr(experts, curve)(64)
        assert fast < slow and getattr(mixed, curve)(64) == pytest.approx((fast + slow) / 2)
    assert profile.fits(0, 8) and not profile.fits(3, 11) and profile.max_layers == 6
    weights_gb = (model.kind_of(0).all_bytes + model.kind_of(3).all_bytes) / 1e9
    left = 80e9 * 0.9 - (weights_gb + model.embedding_gb) * 1e9
    assert mixed.kv_capacity(2) == int(left // 1152)
    assert estimate(Node(name="a", gpu="L4"), Model.preset("llama2-70b")).of_range(3, 9).is_uniform


def test_eight_mi300x_add_up_over_their_links_to_each_other():
    """All-reduce of 1 GiB on eight MI300X: RCCL reaches 0.29 to 0.336 TB/s of bus bandwidth, seven links of 48 GB/s."""
    message = 2**30
    took_s = all_reduce_ms(message, 8, gpu_links("MI300X")["xgmi"]) / 1e3
    bus_bandwidth = message / took_s * 2 * 7 / 8
    assert 0.29e12 < bus_bandwidth <= 0.336e12
    node, model = Node(name="n", gpu="MI300X", gpus_per_node=8), Model.preset("llama3.1-70b")
    found, through_host = estimate(node, model), estimate(node, model, link=gpu_links("*")["pcie"])
    assert found.decode_ms_per_layer(32) < through_host.decode_ms_per_layer(32) and "xgmi" in found.source
