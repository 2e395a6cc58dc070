"""The last comparison: who is dropped, when it ends, and the interval of what is left."""

import numpy as np
import pytest

from helix_kit.flow import Flow
from helix_kit.search.candidate import Candidate, LatencyLimits, Trial, value_of
from helix_kit.search.finals import MAX_ROUNDS, MIN_ROUNDS, Finals, nearest, score_over
from helix_kit.simulator.scoring import Score


def candidates(count):
    return [Candidate({f"n{i}": (0, 1)}, Flow(1.0, {}, {}, ()), 1.0) for i in range(count)]


def played(true_values, noise, shared_noise, max_rounds=MAX_ROUNDS, seed=0):
    """Finals of plans with these true values; each stream shifts all of them alike, and each run by itself."""
    rng = np.random.default_rng(seed)
    entered = candidates(len(true_values))
    truth = dict(zip(map(id, entered), true_values, strict=True))

    def simulate(left, trial):
        shift = rng.normal(0, shared_noise)
        scores = [Score(decode_tokens_per_s=truth[id(c)] + shift + rng.normal(0, noise), window_s=1.0) for c in left]
        return [Candidate(c.placement, c.flow, 1.0, s) for c, s in zip(left, scores, strict=True)]

    finals = Finals(entered, lambda c, score: score.decode_tokens_per_s)
    finals.compare(Trial(requests=10), simulate, lambda left: True, max_rounds)
    return finals, entered


def test_what_all_plans_owe_to_a_stream_does_not_hide_the_best():
    """Streams differ by 20, plans by 5: over paired streams the best is still told apart."""
    finals, entered = played([100.0, 105.0, 95.0], noise=0.5, shared_noise=20.0)
    assert finals.left == [entered[1]]
    assert len(finals.seeds) >= MIN_ROUNDS


def test_a_plan_far_behind_is_dropped_after_one_stream():
    finals, entered = played([100.0, 50.0], noise=0.1, shared_noise=0.1)
    assert len(finals.runs[id(entered[1])]) == 1
    assert len(finals.runs[id(entered[0])]) == MIN_ROUNDS


def test_equal_plans_stay_to_the_end():
    finals, _ = played([100.0, 100.0], noise=5.0, shared_noise=0.0)
    assert len(finals.seeds) == MAX_ROUNDS
    assert finals.seeds == list(range(1, MAX_ROUNDS + 1)), "fresh seeds, not the search's own"


def test_the_true_value_lies_within_the_interval():
    """Of 200 plans measured on four streams, about 95 % of the intervals hold the true value."""
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(200):
        runs = [Score(decode_tokens_per_s=v) for v in rng.normal(100, 3, MIN_ROUNDS)]
        score = score_over(runs)
        held += abs(score.decode_tokens_per_s - 100) <= score.half_width_tokens_per_s
    assert 180 <= held <= 199


def test_one_run_keeps_the_interval_of_its_batches():
    score = score_over([Score(decode_tokens_per_s=10.0, half_width_tokens_per_s=2.0)])
    assert score.half_width_tokens_per_s == pytest.approx(2.0)


def with_latency(value, latency_s):
    return Score(decode_tokens_per_s=value, decode_latency_s=latency_s, window_s=1.0)


def test_a_plan_within_the_limit_outlives_faster_ones_above_it():
    """Marked down by the fourth power the plan above its limit still counts 92: it is dropped all the same."""
    limits = LatencyLimits(decode_s=0.1)
    scores = [with_latency(100.0, 0.102), with_latency(50.0, 0.09)]
    entered = [Candidate({f"n{i}": (0, 1)}, Flow(1.0, {}, {}, ()), 1.0) for i in range(2)]
    of = dict(zip(map(id, entered), scores, strict=True))

    def simulate(left, trial):
        return [Candidate(c.placement, c.flow, 1.0, of[id(c)]) for c in left]

    finals = Finals(entered, lambda c, score: value_of(score, limits, online=False), limits)
    finals.compare(Trial(requests=10), simulate, lambda left: True, MAX_ROUNDS)
    assert finals.left == [entered[1]]
    assert [c for c, _ in finals.measured()] == [entered[1], entered[0]]


def test_the_best_within_each_margin_of_the_limit_is_compared():
    limits = LatencyLimits(decode_s=0.1)
    rows = [(100.0, 0.11), (90.0, 0.099), (80.0, 0.094), (70.0, 0.093), (60.0, 0.05)]
    ranked = [Candidate({}, Flow(1.0, {}, {}, ()), 1.0, with_latency(*row)) for row in rows]
    assert nearest(ranked, limits) == [ranked[1], ranked[2], ranked[4]]
    assert nearest(ranked[:1], limits) == ranked[:1], "the one least above the limit"
    assert nearest(ranked, LatencyLimits()) == []
