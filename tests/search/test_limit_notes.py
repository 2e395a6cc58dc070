"""A missed latency limit is said in words that hold for the numbers beside them."""

from __future__ import annotations

from helix_kit.flow import Flow
from helix_kit.search.candidate import Candidate, LatencyLimits
from helix_kit.search.limit_notes import limit_notes
from helix_kit.simulator.scoring import Score


def candidate(decode_s: float, prompt_s: float = 1.0) -> Candidate:
    score = Score(decode_latency_s=decode_s, prompt_latency_s=prompt_s, decode_steps=5)
    return Candidate({}, Flow(1.0, {}, {}, ()), 0.0, score)


def test_limits_that_are_met_need_no_words():
    assert limit_notes(candidate(0.1), [], LatencyLimits(0.1, 1.0)) == []


def test_how_near_the_others_came():
    (note,) = limit_notes(candidate(0.15), [candidate(0.12), candidate(0.2)], LatencyLimits(0.1))
    assert "the limit of 0.1 s on the mean decode latency: this one has 0.15 s, 50.0 % above" in note
    assert note.endswith("the lowest of all plans tried is 0.12 s")


def test_one_that_met_the_limit_elsewhere_is_no_contradiction():
    (note,) = limit_notes(candidate(0.100004), [candidate(0.09)], LatencyLimits(0.1))
    assert "below 0.01 % above" in note and "0.09 s in a short simulation" in note and "lowest" not in note
