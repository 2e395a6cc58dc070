"""The plans that this package promises: value and gap, with either open solver. `make bench-plan` has the seconds."""

import pytest
from independent_flow import independent_flow

import helix_kit as hk

EIGHT_L4 = {
    "name": "8xL4",
    "nodes": [{"gpu": "L4", "count": 8}],
    "network": {"within_region": {"bandwidth_gbps": 10, "latency_ms": 1}},
}
"""The sub-cluster that the published comparison gives LLaMA-30B to."""
TARGETS = [
    # cluster, model, least tokens/s, largest gap
    ("single24", "llama2-70b", 2045.6, 1e-4),
    ("single24", "llama-30b", 1517.6, 1e-3),
    # The clock decides between two plans here: 5993.7 tokens/s (gap 0.98 %) and 5977.7 (1.25 %) were both seen.
    ("hetero42", "llama2-70b", 5977.0, 0.0126),
    ("cluster10", "llama-30b", 286.58, 1e-3),
    (EIGHT_L4, "llama-30b", 252.6, 1e-3),
]


@pytest.mark.parametrize("solver", ["highs", "glpk"])
@pytest.mark.parametrize(
    ("cluster", "model", "least", "gap"), TARGETS, ids=lambda v: v["name"] if isinstance(v, dict) else str(v)
)
def test_pattern_reaches_the_known_best(cluster, model, least, gap, solver):
    described = hk.Cluster.model_validate(cluster) if isinstance(cluster, dict) else hk.Cluster.preset(cluster)
    plan = hk.plan(described, hk.Model.preset(model), solver=solver, time_limit_s=60, patience_s=4.0)
    assert plan.flow_tokens_per_s >= least
    assert plan.gap <= gap
    assert independent_flow(plan) == pytest.approx(plan.flow_tokens_per_s, rel=1e-6)


def test_same_seed_same_plan():
    made = [hk.plan("single24", "llama-30b", seed=3) for _ in range(2)]
    assert made[0].placement == made[1].placement
    assert made[0].flow == made[1].flow


def test_progress_and_record():
    seen = []
    plan = hk.plan(
        "hetero42", "llama2-70b", time_limit_s=2, deterministic=True, progress=lambda *event: seen.append(event)
    )
    assert len(seen) >= 3
    values, bounds = [e[1] for e in seen], [e[2] for e in seen]
    assert values == sorted(values)
    assert bounds == sorted(bounds, reverse=True)
    assert plan.progress[-1][1:] == (plan.flow_tokens_per_s, plan.bound_tokens_per_s)


def test_stop_at_once_still_gives_a_plan():
    plan = hk.plan("hetero42", "llama2-70b", deterministic=True, stop=lambda: True)
    assert plan.flow_tokens_per_s > 0
    assert plan.seconds < 1, "of counted work"
