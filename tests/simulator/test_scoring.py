"""Simulations that end early: what they say until then is what the whole run says."""

import pytest

import helix_kit as hk
from helix_kit.placement.plan import Plan
from helix_kit.placement.problem import Problem
from helix_kit.simulator import score


@pytest.fixture(scope="module")
def plan():
    return hk.plan("single24", "llama2-70b", max_stages=12)


@pytest.mark.parametrize("execution", ["layerwise", "range"])
def test_one_that_is_behind_ends_at_a_quarter_or_half(plan, execution):
    common = {"duration_s": 40.0, "warmup_s": 20.0, "execution": execution}
    whole = score(plan, **common)
    quarter, half = whole.quarter_tokens_per_s, whole.half_tokens_per_s
    assert whole.window_s == 40.0 and quarter > 0 and half > 0
    assert score(plan, **common, at_least=(quarter, half)) == whole
    early = score(plan, **common, at_least=(1.01 * quarter, 0.0))
    later = score(plan, **common, at_least=(0.0, 1.01 * half))
    assert (early.window_s, later.window_s) == (10.0, 20.0)
    assert early.quarter_tokens_per_s == later.quarter_tokens_per_s == quarter
    assert later.half_tokens_per_s == half
    # Later halves of the ten and twenty seconds, as windows of their own: all tokens but the first of each prompt are
    # decode tokens, so counted otherwise the rates are the same within the window's edge.
    for run, counted in ((early, quarter), (later, half)):
        half_s = run.window_s / 2
        alone = score(plan, **{**common, "warmup_s": common["warmup_s"] + half_s, "duration_s": half_s})
        decoded = alone.decode_tokens_per_s + alone.prompts / half_s
        assert decoded == pytest.approx(counted, rel=0.02)


@pytest.mark.parametrize("execution", ["layerwise", "range"])
@pytest.mark.parametrize("policy", ["helix", "swarm", "shortest-queue", "random"])
@pytest.mark.parametrize("network", [{"within_region": {"bandwidth_gbps": 1e-9}}, {"nic_gbps": 1e-9}])
def test_links_that_carry_next_to_nothing_serve_next_to_nothing(execution, policy, network):
    """An eighth of a byte a second: a prompt of a hundred tokens takes half an hour, and no division fails."""
    cluster = hk.Cluster.model_validate({"name": "slow", "nodes": [{"gpu": "L4"}], "network": network})
    sizes = {"hidden_size": 1024, "num_heads": 16, "intermediate_size": 2816, "vocab_size": 32000}
    problem = Problem.of(cluster, hk.Model(name="small", num_layers=8, **sizes))
    plan = Plan.from_placement(problem, {"L4-0": (0, 8)}, method="hand")
    assert plan.flow_tokens_per_s == pytest.approx(0.0625, abs=1e-3)  # token ids of two bytes
    result = score(plan, execution=execution, policy=policy, duration_s=60.0, warmup_s=10.0)
    assert result.decode_tokens_per_s == 0.0
