"""Key figures: prices and KV by hand, and the simulated ones as a user's own simulation gives them."""

from __future__ import annotations

import pytest

from helix_kit import Cluster, Model, Plan, Problem, Workload, plan, simulate
from helix_kit.analysis import key_figures
from helix_kit.analysis.key_figures import window_s
from helix_kit.catalogue import gpus


def four(**changes) -> Plan:
    nodes = [{"gpu": "L4", "count": 6}, {"gpu": "A100-40G", "gpus_per_node": 2}]
    cluster = Cluster.model_validate({"name": "mixed", "nodes": nodes, **changes})
    return plan(cluster, Model.preset("llama-30b"), time_limit_s=5)


def test_the_cost_counts_every_gpu_of_the_machines_in_use():
    """As `plan` and `explain` print it: a machine without flow is not paid for."""
    made = four()
    layers = made.model.num_layers
    l4, a100 = (gpus()[name].price_usd_per_hour for name in ("L4", "A100-40G"))
    one = made.rearranged({"A100-40Gx2-0": (0, layers)})
    figures = key_figures(one, simulated=False)
    assert figures.usd_per_hour == pytest.approx(2 * a100)
    assert figures.decode_tokens_per_s is None and figures.usd_per_million_tokens is None
    both = made.rearranged({"A100-40Gx2-0": (0, layers - 1), "L4-3": (layers - 1, layers)})
    assert key_figures(both, simulated=False).usd_per_hour == pytest.approx(2 * a100 + l4)


def test_simulated_requests_are_as_long_as_those_that_the_plan_is_for():
    """Prompts of 2,000 tokens and answers of 20 leave less time for decodes than the conversation trace does."""
    cluster = four().cluster
    long = plan(cluster, Model.preset("llama-30b"), workload=(2000, 20), time_limit_s=5)
    warmup_s, measured_s = window_s(long)
    requests = Workload.of([(0.0, 2000, 20)] * 6000)
    summary = simulate(long, requests, mode="offline", warmup_s=warmup_s, duration_s=measured_s).summary()
    assert key_figures(long).decode_tokens_per_s == pytest.approx(summary["decode_tokens_per_s"], rel=0.02)


def test_a_gpu_without_a_price_is_named():
    own = {"BIG": {"memory_gb": 96, "memory_bandwidth_gb_per_s": 1000, "fp16_tflops": 200}}
    cluster = Cluster.model_validate({"name": "own", "gpus": own, "nodes": [{"gpu": "BIG"}, {"gpu": "L4"}]})
    figures = key_figures(plan(cluster, Model.preset("llama-30b"), time_limit_s=5), simulated=False)
    assert figures.usd_per_hour is None and figures.unpriced == ("BIG",)


def test_simulated_figures_are_those_of_a_users_own_simulation():
    result = four()
    figures = key_figures(result)
    warmup_s, measured_s = window_s(result)
    assert (warmup_s, measured_s) == (120.0, 600.0) == (figures.warmup_s, figures.measured_s)
    run = simulate(
        result, Workload.offline(4000), mode="offline", warmup_s=warmup_s, duration_s=measured_s, execution="range"
    )
    summary = run.summary()
    assert figures.decode_tokens_per_s == pytest.approx(summary["decode_tokens_per_s"], rel=0.01)
    assert figures.decode_latency_s == pytest.approx(summary["decode_latency_s"]["avg"], rel=0.01)
    expected = figures.usd_per_hour / 3600 / figures.decode_tokens_per_s * 1e6
    assert figures.usd_per_million_tokens == pytest.approx(expected)


def test_a_placement_without_flow_serves_nothing():
    result = four()
    held = {name: span for name, span in result.placement.items() if span[0] > 0}
    figures = key_figures(result.rearranged(held))
    assert (figures.flow_tokens_per_s, figures.decode_tokens_per_s, figures.stages) == (0.0, 0.0, 0)


def test_fast_plans_are_measured_for_a_shorter_time_with_the_same_result():
    cluster = Cluster.model_validate({"name": "fast", "nodes": [{"gpu": "A100-80G", "count": 9}]})
    fast = plan(cluster, Model.preset("llama-30b"), time_limit_s=5)
    assert fast.flow_tokens_per_s > 4000
    warmup_s, measured_s = window_s(fast)
    assert warmup_s < 120 and measured_s == pytest.approx(5 * warmup_s, abs=3)
    whole = simulate(fast, Workload.offline(8000), mode="offline", warmup_s=120, duration_s=600).summary()
    assert key_figures(fast).decode_tokens_per_s == pytest.approx(whole["decode_tokens_per_s"], rel=0.05)


def test_a_better_edit_is_better_simulated():
    """With too short a warm-up the repaired plan seemed to serve a quarter of the broken one."""
    cluster = Cluster.model_validate(
        {
            "name": "two-cities",
            "coordinator": {"region": "paris"},
            "nodes": [
                {"gpu": "A100-40G", "count": 4, "region": "paris"},
                {"gpu": "L4", "count": 6, "region": "oslo"},
                {"gpu": "T4", "count": 8, "region": "oslo"},
            ],
            "network": {"between_regions": {"bandwidth_gbps": 0.2, "latency_ms": 30}},
        }
    )
    good = plan(cluster, Model.preset("llama2-70b"), time_limit_s=10)
    problem = Problem.of(cluster, good.model)
    start, end = good.placement["L4-0"]
    shorter = Plan.from_placement(problem, {**good.placement, "L4-0": (start, end - 1)}, method="edited")
    if shorter.flow_tokens_per_s <= 0:
        shorter = Plan.from_placement(problem, {**good.placement, "L4-0": (start + 1, end)}, method="edited")
    assert shorter.flow_tokens_per_s < good.flow_tokens_per_s
    better, worse = key_figures(good), key_figures(shorter)
    assert better.decode_tokens_per_s > 240 and better.decode_latency_s < 1.2
    assert worse.decode_tokens_per_s < better.decode_tokens_per_s
