"""Scores: they are what the simulation says, also of simulations that end early."""

from __future__ import annotations

import pytest

import helix_kit as hk
from helix_kit.errors import InputError
from helix_kit.placement.plan import Plan
from helix_kit.placement.problem import Problem
from helix_kit.simulator import score, scoring, simulate
from helix_kit.workload import Workload


@pytest.fixture(scope="module")
def single24_plan():
    return hk.plan("single24", "llama2-70b", max_stages=12)


@pytest.mark.parametrize("execution", ["layerwise", "range"])
def test_one_that_is_behind_ends_at_a_quarter_or_half(single24_plan, execution):
    common = {"duration_s": 40.0, "warmup_s": 20.0, "execution": execution}
    whole = score(single24_plan, **common)
    quarter, half = whole.quarter_tokens_per_s, whole.half_tokens_per_s
    assert whole.window_s == 40.0 and quarter > 0 and half > 0
    assert score(single24_plan, **common, at_least=(quarter, half)) == whole
    early = score(single24_plan, **common, at_least=(1.01 * quarter, 0.0))
    later = score(single24_plan, **common, at_least=(0.0, 1.01 * half))
    assert (early.window_s, later.window_s) == (10.0, 20.0)
    assert early.quarter_tokens_per_s == later.quarter_tokens_per_s == quarter
    assert later.half_tokens_per_s == half
    # Later halves of the ten and twenty seconds, as windows of their own: all tokens but the first of each prompt are
    # decode tokens, so counted otherwise the rates are the same within the window's edge.
    for run, counted in ((early, quarter), (later, half)):
        half_s = run.window_s / 2
        alone = score(single24_plan, **{**common, "warmup_s": common["warmup_s"] + half_s, "duration_s": half_s})
        decoded = alone.decode_tokens_per_s + alone.prompts / half_s
        assert decoded == pytest.approx(counted, rel=0.02)


def test_score_is_the_simulation(plan):
    backlog = Workload.offline(2000, seed=0)
    for execution in ("range", "layerwise"):
        run = simulate(plan, backlog, mode="offline", execution=execution, warmup_s=20, duration_s=60).summary()
        quick = score(plan, backlog, execution=execution, warmup_s=20, duration_s=60)
        assert quick.decode_tokens_per_s == pytest.approx(run["decode_tokens_per_s"], rel=1e-12)
        assert quick.prompt_latency_s == pytest.approx(run["prompt_latency_s"]["avg"], rel=1e-9)
        assert quick.decode_latency_s == pytest.approx(run["decode_latency_s"]["avg"], rel=1e-9)
    tuple_form = score((plan.problem, plan.placement, plan.max_flow), backlog, warmup_s=20, duration_s=60)
    assert tuple_form == score(plan, backlog, warmup_s=20, duration_s=60)


def test_a_score_is_still_read_as_the_dict_it_was(plan):
    quick = score(plan, duration_s=10, warmup_s=5)
    with pytest.warns(DeprecationWarning, match=r"score\.prompts"):
        assert quick["prompts"] == quick.prompts > 0
    with pytest.warns(DeprecationWarning):
        assert dict(quick) == quick.to_dict()


@pytest.mark.parametrize("execution", ["range", "layerwise"])
def test_a_backlog_lasts_for_the_run(plan, monkeypatch, execution):
    """Sixteen requests are served long before the end: more are taken until some are left."""
    options = {"execution": execution, "warmup_s": 20, "duration_s": 60}
    served = score(plan, **options).decode_tokens_per_s
    monkeypatch.setattr(scoring, "BACKLOG", 16)
    assert score(plan, **options).decode_tokens_per_s == pytest.approx(served, rel=0.2)
    with pytest.raises(
        InputError, match=r"workload = '16 requests': expected .* for the 80 s of the run; they ran dry"
    ):
        score(plan, Workload.offline(16, seed=0), **options)


@pytest.mark.parametrize("execution", ["range", "layerwise"])
def test_a_backlog_that_nobody_can_serve_is_not_made_longer(plan, monkeypatch, execution):
    """With room for ten tokens in a layer every request is turned away, of however many."""
    asked = []
    make = scoring._backlog
    monkeypatch.setattr(
        scoring, "_backlog", lambda seed, requests, *rest: asked.append(requests) or make(seed, requests, *rest)
    )
    room = {node: 10 * (end - start) for node, (start, end) in plan.placement.items()}
    assert score(plan, execution=execution, warmup_s=5, duration_s=10, kv_capacity=room).decode_tokens_per_s == 0
    assert len(asked) == 1


def test_online_scores_need_arrivals(plan):
    with pytest.raises(InputError, match="workload"):
        score(plan, mode="online", duration_s=10)


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
