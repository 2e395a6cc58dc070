"""Plans under an engine of replicas: which are served, how requests are routed, and what the report says."""

from __future__ import annotations

import pytest

from helix_kit import Cluster, InputError, Model, Plan, Problem, Workload, simulate
from helix_kit.simulator.options import BatchingOptions

CLUSTER = Cluster.model_validate({"name": "two", "nodes": [{"gpu": "H100-80G", "count": 2}]})
PROBLEM = Problem.of(CLUSTER, Model.preset("SmolLM2-135M"))
A, B = (node.name for node in CLUSTER.nodes)
REPLICAS = Plan.from_placement(PROBLEM, {A: (0, 30), B: (0, 30)}, method="by hand")
CHAIN = Plan.from_placement(PROBLEM, {A: (0, 15), B: (15, 30)}, method="by hand")
WORKLOAD = Workload.shared_prompts(20.0, 10.0, output_tokens=20)


@pytest.mark.parametrize("plan", [REPLICAS, CHAIN], ids=["replicas", "chain"])
def test_all_requests_are_served(plan):
    run = simulate(plan, WORKLOAD, engine="vllm-0.15", record_batches=True)
    summary = run.summary()
    assert summary["finished"] == len(WORKLOAD) == 200
    assert summary["engine"] == "vllm-0.15"
    assert 0.3 < summary["prefix_hit_rate"] < 1
    assert all(0 < use.busy < 1 for use in run.nodes.values())
    assert len(run.batches) == sum(use.steps for use in run.nodes.values())
    assert len(run.tokens.request) == sum(r.output_tokens for r in WORKLOAD)


def test_a_policy_finds_the_replica_with_the_prefix():
    """Prompts in random order: looking for the prefix finds more of it than chance does."""
    rates = {p: simulate(REPLICAS, WORKLOAD, engine="vllm-0.15", policy=p).summary()["prefix_hit_rate"]
             for p in ("prefix", "random", "shortest-queue", "helix")}  # fmt: skip
    assert max(rates, key=rates.get) == "prefix"
    assert rates["prefix"] > rates["random"] + 0.05


def test_our_runtime_is_an_engine_too():
    """The record `helix` stands for the options of our workers."""
    given = simulate(CHAIN, WORKLOAD, options=BatchingOptions()).summary()
    named = simulate(CHAIN, WORKLOAD, engine="helix").summary()
    assert named["decode_latency_s"] == given["decode_latency_s"]
    assert named["prompt_latency_s"] == given["prompt_latency_s"]


def test_what_an_engine_cannot_serve_is_refused():
    shared = Plan.from_placement(PROBLEM, {A: (0, 20), B: (10, 30)}, method="by hand", partial_inference=True)
    with pytest.raises(InputError, match=f"separate pipelines.*; {A}, {B} are in no such pipeline. `helix-kit plan --"):
        simulate(shared, WORKLOAD, engine="vllm-0.15")
    with pytest.raises(InputError, match="policy of replicas"):
        simulate(CHAIN, WORKLOAD, engine="vllm-0.15", policy="swarm")
    with pytest.raises(InputError, match="no execution and no options"):
        simulate(CHAIN, WORKLOAD, engine="vllm-0.15", execution="layerwise")
    long = Workload.of([(0.0, 10, 10), (0.0, 5000, 10)])
    run = simulate(CHAIN, long, engine="vllm-0.15", kv_capacity={A: 15 * 1600})
    assert [r.outcome for r in run.records] == ["finished", "rejected"]
