"""Models that people serve now on the machines that they have: plan, proof, simulation and explanation.

Experts, latent attention, windows and weights of 4 and 8 bits, each on a mix of GPUs.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

import helix_kit as hk
from helix_kit.analysis import explain
from helix_kit.workload import Workload

H100, A100, RTX4090 = {"gpu": "H100-80G"}, {"gpu": "A100-80G"}, {"gpu": "RTX4090"}
REGIONS = {
    "within_region": {"bandwidth_gbps": 100, "latency_ms": 0.1},
    "between_regions": {"bandwidth_gbps": 0.1, "latency_ms": 30},
}
CASES: dict[str, dict[str, Any]] = {
    "home": {
        "model": "qwen3-30b-a3b-int4",
        "nodes": [{"gpu": "RTX3090"}, RTX4090, {"gpu": "L4"}],
        "gap": 1e-3,
    },
    "lab": {
        "model": "gpt-oss-120b",
        "nodes": [H100 | {"count": 2}, RTX4090 | {"count": 6}],
        "gap": 1e-3,
    },
    "one region": {
        "model": "deepseek-v3",
        "nodes": [H100 | {"count": 16}, A100 | {"count": 16}],
        "gap": 0.01,
    },
    # The proof knows regions, but its parts of nodes leave a few percent.
    "two regions": {
        "model": "deepseek-v3",
        "nodes": [H100 | {"count": 16, "region": "east"}, A100 | {"count": 16, "region": "west"}],
        "network": REGIONS,
        "gap": 0.03,
    },
}  # fmt: skip
WORDS = {
    "home": [
        "Experts: a token takes 8 of 128 in each layer, 2.73 of 29.9 billion parameters.",
        "Weights: 4.16 bits on average",
        "A token's keys and values take 98.3 KB in all layers together.",
    ],
    "lab": [
        "Experts: a token takes 4 of 128 in each layer",
        "Weights: 4.35 bits on average",
        "The last 128 tokens alone are kept in 18 of 36 layers.",
        "All capacity of layers ",
    ],
    "one region": [
        "Experts: a token takes 8 of 256 and 1 shared by all tokens in 58 of 61 layers",
        "Weights: 8 bits on average",
        "A token takes 70.3 KB of KV cache in all layers together: a layer keeps one compressed vector for all heads.",
    ],
    "two regions": ["58 of 61 layers", "KV caches: about"],
}


@cache
def planned(name: str) -> hk.Plan:
    """The plan of a case, with a limit of counted work: the same on every machine."""
    case = CASES[name]
    fields = {"name": name, "nodes": case["nodes"]} | ({"network": case["network"]} if "network" in case else {})
    cluster = hk.Cluster.model_validate(fields)
    return hk.plan(cluster, case["model"], objective="flow", time_limit_s=5, deterministic=True)


@pytest.mark.parametrize("name", CASES)
def test_the_plan_is_within_its_proof(name: str) -> None:
    plan = planned(name)
    assert plan.flow_tokens_per_s <= plan.bound_tokens_per_s * (1 + 1e-9)
    assert plan.gap < CASES[name]["gap"]


@pytest.mark.parametrize("name", CASES)
def test_the_layers_fit_into_the_memory_of_their_machines(name: str) -> None:
    """Weights and one request's cache, from the published sizes: the package's own limits play no part."""
    layer_gb = {"home": 15.6 / 48, "lab": 62.9 / 36, "one region": 11.5, "two regions": 11.5}[name]
    memory_gb = {"RTX3090": 24, "RTX4090": 24, "L4": 24, "H100-80G": 80, "A100-80G": 80}
    plan = planned(name)
    held = [0] * plan.model.num_layers
    for node, (start, end) in plan.placement.items():
        assert (end - start - (3 if layer_gb > 10 and start == 0 else 0)) * layer_gb < memory_gb[
            plan.cluster.node(node).gpu
        ]
        held[start:end] = [count + 1 for count in held[start:end]]
    assert min(held) >= 1


@pytest.mark.parametrize("name", ["home", "lab", "one region"])
def test_the_simulation_serves_about_what_the_plan_says(name: str) -> None:
    """T(k) is a rule for a steady mix of prompts and answers; steps of the engine are simulated one by one."""
    plan = planned(name)
    load = Workload.offline(20_000, seed=0, like="azure-conversation")
    run = hk.simulate(plan, load, mode="offline", execution="range", warmup_s=90, duration_s=60)
    served = run.summary()["total_tokens_per_s"]
    assert 0.7 * plan.flow_tokens_per_s < served < 1.35 * plan.flow_tokens_per_s


@pytest.mark.parametrize("name", CASES)
def test_the_explanation_names_experts_bits_and_cache(name: str) -> None:
    words = explain(planned(name))
    for expected in WORDS[name]:
        assert expected in words
    assert f"no plan on this cluster carries more than {planned(name).bound_tokens_per_s:,.0f}" in words


def test_a_link_between_regions_sends_what_it_carries() -> None:
    """Hidden states of 14,336 bytes and ids of 4: a link of 0.1 gbit/s carries 872 a second."""
    plan = planned("two regions")
    region = {node.name: node.region for node in plan.cluster.nodes}
    crossing = 0.0
    for (source, target), tokens_per_s in plan.flow_edges.items():
        if source in region and target in region and region[source] != region[target]:
            crossing = max(crossing, tokens_per_s)
    assert 0 < crossing <= 0.1e9 / 8 / (7168 * 2 + 4) * 1.001
