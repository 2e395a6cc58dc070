"""T(k) of engines: against what the simulated engine serves, and against sums by hand."""

from __future__ import annotations

import numpy as np
import pytest

from helix_kit import Cluster, Model
from helix_kit.errors import InputError
from helix_kit.placement.plan import Plan
from helix_kit.placement.problem import Problem
from helix_kit.profiles.engine_speed import check_engine, engine_tables, request_tokens_per_s
from helix_kit.profiles.engines import load_engine
from helix_kit.profiles.step import StepCosts
from helix_kit.simulator import score
from helix_kit.typical_request import MeanLengths

ENGINE = load_engine("vllm-0.15")
LENGTHS = MeanLengths(200, 100)


def test_a_request_costs_its_prompt_and_its_share_of_each_step():
    engine = ENGINE.with_rules(max_num_batched_tokens=120)
    costs = StepCosts(
        linear_s=0.001 * np.arange(200), fixed_s=0.5, mixed_s=0.25, eager_s=0.0, graph_tokens=1000, context_s=0.0,
        pair_s=0.0, sampled_s=0.0,
    )  # fmt: skip
    # Beside 20 requests that decode, a step has room for 100 tokens of a prompt, so that 200 come in two steps.
    prompt_s = 200 * 0.001 + 2 * 0.25
    decode_s = 99 * (0.5 + 20 * 0.001) / 20
    assert request_tokens_per_s(costs, engine, LENGTHS, 20) == pytest.approx(300 / (prompt_s + decode_s))


def test_more_memory_is_never_slower():
    cluster = Cluster.model_validate({"name": "c", "nodes": [{"gpu": "A100-40G"}, {"gpu": "A100-80G"}]})
    tables = engine_tables(cluster, Model.preset("llama-30b"), ENGINE, LENGTHS)
    small, large = tables["A100-40G"], tables["A100-80G"]
    assert len(small) < len(large)
    # The larger card has a higher bandwidth, too.
    assert all(a <= b for a, b in zip(small, large, strict=False))


def test_a_rare_prompt_holds_a_chain_up_for_all_its_stages():
    engine = ENGINE.with_rules(max_num_batched_tokens=10_000)
    costs = StepCosts(
        linear_s=0.001 * np.arange(10_001), fixed_s=0.5, mixed_s=0.0, eager_s=0.0, graph_tokens=10**6, context_s=0.0,
        pair_s=0.0, sampled_s=0.0,
    )  # fmt: skip

    def prompt_s(batch, stages):
        """What the prompt of 200 tokens costs, beside the steps of the answer."""
        decode_s = 9999 * (0.5 + 0.001 * batch) / batch
        return 10200 / request_tokens_per_s(costs, engine, MeanLengths(200, 10000), batch, stages) - decode_s

    # One prompt in 1000 steps: four stages let it pass one after another, and the three steps beside it wait.
    assert prompt_s(10, 1) == pytest.approx(0.2, rel=1e-3)
    assert prompt_s(10, 4) == pytest.approx(0.8, rel=0.01)
    # By chance: steps with a prompt at random, p at a time; a round takes p times its longest step at least.
    rng = np.random.default_rng(0)
    has_prompt = rng.random((200_000, 4)) < 0.25
    rounds = np.where(has_prompt.any(axis=1), 4 + has_prompt.sum(axis=1) - 1, 0)
    found = prompt_s(0.25 * 9999, 4) / 0.2
    assert found == pytest.approx(rounds.sum() / has_prompt.sum(), rel=0.02)


@pytest.mark.parametrize(("gpu", "count"), [("H100-80G", 1), ("A100-80G", 2)])
def test_a_node_serves_about_what_is_predicted(gpu, count):
    cluster = Cluster.model_validate({"name": "c", "nodes": [{"gpu": gpu, "count": count}]})
    problem = Problem.of(cluster, Model.preset("llama-30b"), lengths=LENGTHS, engine=ENGINE)
    edges = np.linspace(0, 60, count + 1).astype(int).tolist()
    placement = {n.name: (edges[i], edges[i + 1]) for i, n in enumerate(cluster.nodes)}
    plan = Plan.from_placement(problem, placement, method="by hand")
    found = score(plan, execution="range", duration_s=60, warmup_s=30, lengths=((200, 100),))
    served = found.decode_steps / found.window_s / 99 * 300
    assert plan.flow_tokens_per_s == pytest.approx(served, rel=0.4)


def test_an_engine_with_constants_takes_no_profiles():
    profiles = Problem.of(Cluster.preset("laptop"), Model.preset("SmolLM2-135M")).profiles
    assert not check_engine(load_engine("helix"), profiles)
    with pytest.raises(InputError, match="profiles"):
        check_engine(ENGINE, profiles)
