"""Served plans for engines of replicas: the simulated engine chooses among sets of chains."""

from __future__ import annotations

import pytest

import helix_kit as hk
from helix_kit.placement.replicas import best_replicas
from helix_kit.simulator import score

CLUSTER = hk.Cluster.model_validate(
    {"name": "c", "nodes": [{"gpu": "A100-80G", "count": 2}, {"gpu": "L40S", "count": 2}],
     "network": {"within_region": {"bandwidth_gbps": 1, "latency_ms": 5}}}
)  # fmt: skip


@pytest.fixture(scope="module")
def plan():
    return hk.plan(CLUSTER, "llama-30b", engine="vllm-0.15", objective="served", window_s=20.0, time_limit_s=60)


def test_no_set_that_was_tried_serves_more(plan):
    for stages in (1, 2, 4):
        placed = best_replicas(plan.problem, max_stages=stages)
        flow = plan.problem.max_flow(placed.placement, links=placed.links, split="balanced")
        other = score((plan.problem, placed.placement, flow), execution="range", duration_s=20.0, warmup_s=60.0)
        assert other.decode_tokens_per_s <= plan.served.decode_tokens_per_s * (1 + 1e-9)


def test_simulate_and_sweep_take_the_plans_engine(plan):
    workload = hk.Workload.constant(rate_per_s=2.0, duration_s=20.0, input_tokens=100, output_tokens=20)
    run = hk.simulate(plan, workload)
    assert run.facts["engine"] == "vllm-0.15"
    assert run.facts == hk.simulate(plan, workload, engine="vllm-0.15").facts
    found = hk.sweep(plan, rates=[1.0], duration_s=20, warmup_s=5, seeds=1, jobs=1)
    other = hk.sweep(plan.model_copy(update={"engine": None}), engine="vllm-0.15", rates=[1.0], duration_s=20,
                     warmup_s=5, seeds=1, jobs=1)  # fmt: skip
    assert found.points[0]["tpot_mean_s"] == other.points[0]["tpot_mean_s"] > 0
