"""Flows that use a share of what slow kinds can carry."""

import numpy as np
import pytest

import helix_kit as hk
from helix_kit.experiments.figures.common.published import published_run
from helix_kit.placement import Problem
from helix_kit.search.capacity_shares import effective_shares, first_shares, flow_with_shares, share_notes, vary_share
from helix_kit.search.predictor import Predictor
from helix_kit.simulator import score


@pytest.fixture(scope="module")
def problem():
    return Problem.of(hk.Cluster.preset("single24"), hk.Model.preset("llama-30b"))


@pytest.fixture(scope="module")
def three_parts(problem):
    parts = published_run("single", "llama-30b", "helix", "offline").plans()
    return {node: span for part in parts for node, span in part.placement.items()}


def test_spared_kinds_get_their_share_and_stand_apart(problem, three_parts):
    ease = {"A100-40G": 1.0, "L4": 0.3, "T4": 0.2}
    flow = flow_with_shares(problem, three_parts, ease)
    whole = problem.max_flow(three_parts)
    kinds = problem.kind_of
    for (a, b), f in flow.edges.items():
        if f > 0 and "coordinator" not in (a, b):
            assert kinds[a] == kinds[b]
    # What each of the published parts carries alone is in the artifact.
    for (kind, share), alone in zip(ease.items(), (573.284, 240.498, 323.393), strict=True):
        entering = sum(flow.through(n) for n, span in three_parts.items() if kinds[n] == kind and span[0] == 0)
        assert entering == pytest.approx(share * alone, rel=0.01)
    assert flow_with_shares(problem, three_parts, {}) == problem.max_flow(three_parts, split="balanced")
    assert flow_with_shares(problem, three_parts, {}).tokens_per_s == whole.tokens_per_s


def test_first_shares_kinds_serves_more(problem, three_parts):
    """The reason for it all: measured 293 and 399 tokens/s over 200 s."""
    predictor = Predictor(problem)
    guess = first_shares(predictor.decode_s, predictor.prefill_s)
    assert guess["A100-40G"] == 1.0 and guess["T4"] < guess["L4"] < 0.5
    with_all, spared = (
        score(
            (problem, three_parts, flow_with_shares(problem, three_parts, ease)), execution="layerwise", duration_s=60
        ).decode_tokens_per_s
        for ease in ({}, guess)
    )
    assert spared > 1.15 * with_all


def test_nudges_stay_within_bounds(problem, three_parts):
    rng, ease = np.random.default_rng(0), {}
    for _ in range(200):
        before = ease
        ease = vary_share(problem, three_parts, ease, rng)
        assert all(0.1 <= share <= 1.0 for share in ease.values())
        assert sum(before.get(k) != share for k, share in ease.items()) <= 1


def test_shares_without_effect_are_dropped(problem, three_parts):
    """All capacity changes nothing, unless the kind holds all layers and is kept apart for being named."""
    assert effective_shares(problem, three_parts, {"L4": 1.0, "T4": 0.5}) == {"L4": 1.0, "T4": 0.5}
    fewer = {n: span for n, span in three_parts.items() if n != "L4-0"}
    lacking = problem.kind_of["L4-0"]
    without_last = {n: span for n, span in fewer.items() if problem.kind_of[n] != lacking or span[0] > 0}
    assert effective_shares(problem, without_last, {"L4": 1.0, "T4": 0.5}) == {"T4": 0.5}


def test_shares_of_kinds_that_hold_other_layers_are_dropped():
    """In a chain every request passes all kinds: a share would only say that the chain carries less than it does."""
    nodes = [{"gpu": "H100-80G", "count": 2}, {"gpu": "L4", "count": 4}, {"gpu": "T4", "count": 4}]
    cluster = hk.Cluster.model_validate({"name": "mixed", "nodes": nodes})
    problem = Problem.of(cluster, hk.Model.preset("llama3.1-8b"))
    chain = {"H100-80G-0": (0, 20), "L4-0": (20, 28), "T4-0": (28, 32)}
    assert effective_shares(problem, chain, {"H100-80G": 1.0, "L4": 0.3, "T4": 0.33}) == {}
    # L4 and T4 side by side behind the H100: between these two the shares divide requests, whatever the H100's is.
    beside = {"H100-80G-0": (0, 20), "L4-0": (20, 32), "T4-0": (20, 28), "T4-1": (28, 32)}
    for shares in ({"L4": 0.5, "T4": 0.25}, {"H100-80G": 0.2, "L4": 1.0, "T4": 0.5}, {"T4": 0.5}):
        assert effective_shares(problem, beside, shares) == {"T4": 0.5}
    given, kept = (flow_with_shares(problem, beside, shares) for shares in ({"L4": 0.5, "T4": 0.25}, {"T4": 0.5}))
    assert given.tokens_per_s < kept.tokens_per_s
    for edge, rate in given.edges.items():
        of_kept = kept.edges.get(edge, 0.0) / kept.tokens_per_s
        assert rate / given.tokens_per_s == pytest.approx(of_kept, abs=0.01)


def test_equal_shares_of_kinds_that_are_kept_apart_leave_them_apart_with_all_they_carry():
    cluster = hk.Cluster.model_validate({"name": "two", "nodes": [{"gpu": "H100-80G"}, {"gpu": "L4"}]})
    problem = Problem.of(cluster, hk.Model.preset("SmolLM2-135M"))
    both = {"H100-80G-0": (0, 30), "L4-0": (0, 30)}
    assert effective_shares(problem, both, {"H100-80G": 0.3, "L4": 0.3}) == {"H100-80G": 1.0, "L4": 1.0}
    assert effective_shares(problem, {"L4-0": (0, 30)}, {"L4": 0.3}) == {}


def test_no_kind_is_slow_among_equals():
    assert first_shares({"a": 1.0, "b": 1.9}, {"a": 3.0, "b": 9.0}) == {}
    assert first_shares({"a": 1.0, "b": 3.0, "c": 3.0}, {"a": 1.0, "b": 4.0, "c": 8.0}) == {
        "a": 1.0, "b": 0.33, "c": 0.165,
    }  # fmt: skip


def test_a_kind_with_all_its_capacity_is_not_said_to_be_spared():
    assert share_notes({}) == []
    [spared] = share_notes({"L4": 0.3, "T4": 0.25})
    assert spared.endswith("a share of their capacity: L4 30%, T4 25%")
    [apart] = share_notes({"H100-80G": 1.0})
    assert "less than the maximum" not in apart and "100%" not in apart
