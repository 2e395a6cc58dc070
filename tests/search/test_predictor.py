"""The predictor orders plans as the simulator does, and its parts behave."""

import numpy as np
import pytest

import helix_kit as hk
from helix_kit.placement import Problem
from helix_kit.search.candidate import Candidate, Trial
from helix_kit.search.evaluate import simulated
from helix_kit.search.held_out import rank_correlation
from helix_kit.search.moves import neighbours
from helix_kit.search.predictor import Predictor


@pytest.fixture(scope="module")
def problem():
    return Problem.of(hk.Cluster.preset("single24"), hk.Model.preset("llama2-70b"))


def candidates(problem):
    """Plans of many shapes: depth caps, baselines, and random walks from them."""
    rng = np.random.default_rng(5)
    starts = [hk.plan(problem.cluster, problem.model, max_stages=d).placement for d in (9, 10, 12, 14, 20)]
    starts += [hk.plan(problem.cluster, problem.model, method=m).placement for m in ("swarm", "petals", "pattern")]
    found = []
    for start in starts:
        found.append((start, problem.max_flow(start, split="balanced")))
        for near in neighbours(problem, start, rng, 3):
            flow = problem.max_flow(near, split="balanced")
            if flow.tokens_per_s > 0:
                found.append((near, flow))
    return found


def test_ranks_as_the_simulator_does_and_better_than_flow(problem):
    pool = candidates(problem)
    predictor, trial = Predictor(problem), Trial(execution="layerwise", duration_s=40, warmup_s=60)
    measured = [simulated(problem, Candidate(*c, 0.0), trial).decode_tokens_per_s for c in pool]
    predicted = [predictor(*c).decode_tokens_per_s for c in pool]
    ours, surrogate = (
        rank_correlation(predicted, measured),
        rank_correlation([f.tokens_per_s for _, f in pool], measured),
    )
    assert ours > 0.5
    assert ours > surrogate + 0.3


def test_more_kv_and_faster_links_help(problem):
    plan = hk.plan(problem.cluster, problem.model, max_stages=12)
    base = Predictor(problem)(plan.placement, plan.max_flow)
    roomy = {
        kind: p.model_copy(update={"kv_capacity_layer_tokens": tuple(2 * c for c in p.kv_capacity_layer_tokens)})
        for kind, p in problem.profiles.items()
    }
    more = Predictor(Problem(problem.cluster, problem.model, roomy, problem.throughput_by_kind))
    assert more(plan.placement, plan.max_flow).in_flight == pytest.approx(2 * base.in_flight)
    assert more(plan.placement, plan.max_flow).decode_tokens_per_s > base.decode_tokens_per_s
    thin = problem.cluster.network.model_copy(
        update={"within_region": problem.cluster.network.within_region.model_copy(update={"latency_ms": 50.0})}
    )
    far = Problem(problem.cluster.model_copy(update={"network": thin}), problem.model, problem.profiles,
                  problem.throughput_by_kind)  # fmt: skip
    assert Predictor(far)(plan.placement, plan.max_flow).decode_latency_s > base.decode_latency_s + 0.5


def test_nothing_flows_nothing_is_served(problem):
    empty = {"T4-0": (0, 4)}
    assert Predictor(problem)(empty, problem.max_flow(empty)).decode_tokens_per_s == 0
