"""What fits into a node's memory, summed up by hand."""

from __future__ import annotations

import pytest

from helix_kit.cluster import Cluster, Node
from helix_kit.errors import InfeasibleError
from helix_kit.model import Model
from helix_kit.placement import Problem
from helix_kit.profiles import estimate, profiles_for
from helix_kit.profiles.memory import MIN_KV_TOKENS, NodeMemory

LLAMA_70B_LAYER = 2 * (2 * 8192**2 + 2 * 8192 * 1024 + 3 * 8192 * 28672 + 2 * 8192)
LLAMA_70B_TABLE = 2 * 128256 * 8192
KV_OF_A_TOKEN = 2 * 8 * 128 * 2
"""Bytes: Llama-3.1-70B in 16 bits, from its config.json."""


@pytest.mark.parametrize(
    ("gpus", "gb", "share"), [(1, 24, 0.9), (1, 80, 0.9), (2, 80, 0.9), (1, 180, 0.9), (4, 16, 0.8), (3, 24, 0.95)]
)
def test_weights_tables_and_cache_are_never_more_than_the_share(gpus, gb, share):
    """On all GPUs together, and on each of them where whole layers are dealt out; one layer more would not fit."""
    model = Model.preset("llama3.1-70b")
    memory = NodeMemory(gpus, gb, share)
    least = MIN_KV_TOKENS * KV_OF_A_TOKEN
    most = memory.max_layers(model)
    for k in range(1, 81):
        dealt = [k // gpus + (i < k % gpus) for i in range(gpus)]
        tables = [LLAMA_70B_TABLE * (2 if k == 80 and gpus == 1 else 1)] * gpus
        fits = all(
            n * (LLAMA_70B_LAYER + least) + table <= gb * 1e9 * share for n, table in zip(dealt, tables, strict=True)
        )
        assert fits == (k <= most)
        if fits:
            cache = memory.kv_tokens(model, k) * KV_OF_A_TOKEN
            total = k * LLAMA_70B_LAYER + LLAMA_70B_TABLE * (2 if k == 80 else 1) + cache
            assert gpus * gb * 1e9 * share - 2 * KV_OF_A_TOKEN < total <= gpus * gb * 1e9 * share
            assert memory.kv_tokens(model, k) >= k * MIN_KV_TOKENS


def test_tied_embeddings_are_one_table():
    fields = {"num_layers": 16, "hidden_size": 2048, "num_heads": 32, "num_kv_heads": 8, "intermediate_size": 8192,
              "vocab_size": 128256}  # fmt: skip
    tied, untied = (Model(name="1b", **fields, tied_embeddings=t) for t in (True, False))
    memory = NodeMemory(1, 3, 0.9)
    assert (memory.max_layers(tied), memory.max_layers(untied)) == (16, 15)
    table = 128256 * 2048 * 2
    assert 16 * tied.layer_gb * 1e9 + table + memory.kv_tokens(tied, 16) * 2 * 8 * 64 * 2 <= 2.7e9


@pytest.mark.parametrize(
    ("model", "nodes"),
    [
        ("llama3.1-70b", [{"gpu": "H100-80G", "gpus_per_node": 2}]),
        ("llama3.1-70b", [{"gpu": "H100-80G", "count": 2}]),
        ("llama3.1-70b", [{"gpu": "B200"}]),
        ("qwen3-32b", [{"gpu": "H100-80G"}]),
    ],
)
def test_models_fit_where_engines_serve_them(model, nodes):
    b200 = {"memory_gb": 180, "memory_bandwidth_gb_per_s": 8000, "fp16_tflops": 2250}
    cluster = Cluster.model_validate({"name": "few", "nodes": nodes, "gpus": {"B200": b200}})
    problem = Problem.of(cluster, Model.preset(model))
    assert min(problem.throughput(n.name, problem.max_layers(n.name)) for n in cluster.nodes) > 0


def test_the_share_is_an_option_and_a_refusal_shows_the_sum():
    model = Model.preset("qwen3-32b")
    cluster = Cluster.model_validate({"name": "one", "nodes": [{"gpu": "H100-80G"}]})
    assert Problem.of(cluster, model)
    with pytest.raises(InfeasibleError) as caught:
        Problem.of(cluster.with_memory_share(0.8), model)
    layer, table = 2 * (2 * 5120 * 8192 + 2 * 5120 * 1024 + 3 * 5120 * 25600 + 2 * 5120), 2 * 151936 * 5120
    cache = 4096 * 2 * 8 * 128 * 2
    held = int((64e9 - table) // (layer + cache))
    assert held < 63, "so that the layer which is missing is not the last one"
    needed = [(held + 1) * layer / 1e9, table / 1e9, (held + 1) * cache / 1e9]
    message = str(caught.value)
    for gb in (*needed, sum(needed)):
        assert f"{gb:.2f} GB" in message
    assert f"H100-80G holds {held} layers; {held + 1} would need" in message and "80 GB x 0.8 = 64.00 GB" in message


def test_measured_tables_keep_the_limits_that_were_published():
    cluster = Cluster.preset("single24").with_memory_share(0.5)
    assert profiles_for(cluster, Model.preset("llama2-70b"))["T4"].max_layers == 4
    assert profiles_for(cluster, Model.preset("llama3.1-70b"))["T4"] == estimate(
        Node(name="a", gpu="T4"), Model.preset("llama3.1-70b"), memory_share=0.5
    )
