"""Candidates of a search: identities, requirements, and local search that keeps to them."""

from __future__ import annotations

from collections import Counter

import pytest

import helix_kit as hk
from helix_kit.placement import Problem
from helix_kit.search import evaluate
from helix_kit.search.candidate import LatencyLimits, Requirements, Trial
from helix_kit.search.evaluate import Evaluator, Exploration
from helix_kit.simulator import score

TRIAL = Trial(duration_s=20.0, warmup_s=10.0)
HALVES = {"A100-40G-0": (0, 15), "A100-40G-1": (15, 30), "A100-40G-2": (0, 15), "A100-40G-3": (15, 30)}
WITH_L4 = {**HALVES, **{f"L4-{i}": (10 * (i % 3), 10 * (i % 3) + 10) for i in range(6)}}


@pytest.fixture(scope="module")
def problem():
    cluster = hk.Cluster.model_validate(
        {"name": "mixed", "nodes": [{"gpu": "A100-40G", "count": 4}, {"gpu": "L4", "count": 6}]}
    )
    model = hk.Model.preset("llama-30b").model_copy(update={"name": "half", "num_layers": 30})
    return Problem.of(cluster, model)


def renamed(placement, *swaps):
    names = {name: name for name in placement}
    for a, b in swaps:
        names[a], names[b] = names[b], names[a]
    return {names[name]: span for name, span in placement.items()}


def test_placements_that_differ_in_the_order_of_equal_machines_are_one(problem):
    other = renamed(WITH_L4, ("A100-40G-0", "A100-40G-1"), ("L4-0", "L4-5"))
    assert other != WITH_L4
    balanced, any_split = (Evaluator(problem, Requirements(flow_split=split)) for split in ("balanced", "any"))
    assert balanced.identity(other) == balanced.identity(WITH_L4)
    assert any_split.identity(other) != any_split.identity(WITH_L4)
    assert balanced.identity(HALVES) != balanced.identity(WITH_L4)
    assert balanced.identity(WITH_L4, {"L4": 0.5}) != balanced.identity(WITH_L4)


def test_a_candidate_carries_the_maximum_flow(problem):
    for split in ("balanced", "any"):
        candidate = Evaluator(problem, Requirements(flow_split=split)).candidate(WITH_L4)
        assert candidate.flow.tokens_per_s == pytest.approx(problem.max_flow(WITH_L4).tokens_per_s)


@pytest.mark.parametrize(
    ("requirements", "placement"),
    [
        ({"pins": {"L4-0": (0, 11)}}, WITH_L4),
        ({"pins": {"L4-0": (0, 10)}}, HALVES),
        ({"max_stages": 2}, WITH_L4),
        ({}, {"A100-40G-0": (0, 15)}),
    ],
)
def test_what_breaks_a_requirement_or_carries_no_flow_is_no_candidate(problem, requirements, placement):
    assert Evaluator(problem, Requirements(**requirements)).candidate(placement) is None


def test_requirements_that_are_kept_make_a_candidate(problem):
    required = Requirements(pins={"L4-0": (0, 10)}, max_stages=3)
    assert Evaluator(problem, required).candidate(WITH_L4).depth == 3


def test_a_simulated_candidate_has_the_score_of_the_simulator(problem):
    evaluator = Evaluator(problem, Requirements())
    candidate = evaluator.simulate(evaluator.candidate(WITH_L4), TRIAL)
    assert candidate.score == score(
        (problem, WITH_L4, candidate.flow), execution="range", duration_s=20.0, warmup_s=10.0
    )
    assert candidate.value == candidate.score.decode_tokens_per_s  # there are no limits
    limit = candidate.score.decode_latency_s / 2
    strict = Evaluator(problem, Requirements(limits=LatencyLimits(decode_s=limit))).simulate(candidate, TRIAL)
    assert strict.value == pytest.approx(candidate.value / 2**4)


@pytest.mark.parametrize("split", ["balanced", "any"])
def test_exploring_simulates_new_candidates_that_keep_to_the_requirements(problem, monkeypatch, split):
    measured = score((problem, HALVES, problem.max_flow(HALVES)), duration_s=5.0, warmup_s=5.0)
    monkeypatch.setattr(evaluate, "simulated", lambda *args: measured)
    pins = {"A100-40G-0": (0, 15)}
    evaluator = Evaluator(problem, Requirements(flow_split=split, pins=pins, max_stages=4))
    known = {evaluator.identity(WITH_L4)}
    seen = Counter()
    for seed in range(6):
        step = Exploration(WITH_L4, seed, picks=3)
        found = evaluator.explore(step, TRIAL, known)
        assert [c.placement for c in found] == [c.placement for c in evaluator.explore(step, TRIAL, known)]
        assert 0 < len(found) <= 3
        for candidate in found:
            name = evaluator.identity(candidate.placement, candidate.shares)
            seen[name] += 1
            assert name not in known and candidate.score == measured
            assert candidate.placement["A100-40G-0"] == (0, 15) and candidate.depth <= 4
            assert problem.holds(candidate.placement)
            assert split == "balanced" or not candidate.shares
    assert len(seen) > 6


def test_exploring_stops_at_once_when_told(problem):
    evaluator = Evaluator(problem, Requirements())
    assert evaluator.explore(Exploration(WITH_L4, 0, picks=3), TRIAL, (), stop=lambda: True) == []


def test_polishing_never_predicts_worse_than_its_start(problem):
    evaluator = Evaluator(problem, Requirements(flow_split="any"))
    start = evaluator.candidate(HALVES)
    best, *others = evaluator.polish(HALVES, seed=1, rounds=8)
    assert best.predicted_value >= start.predicted_value
    assert all(candidate.predicted_value <= best.predicted_value for candidate in others)
    assert [c.placement for c in evaluator.polish(HALVES, seed=1, rounds=8)] == [c.placement for c in (best, *others)]
    assert evaluator.polish({"A100-40G-0": (0, 15)}, seed=1, rounds=8) == []
