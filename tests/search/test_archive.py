"""The archive ranks whole runs, keeps early-ended ones only as known, and sets the limits of a race."""

from dataclasses import replace

import pytest

import helix_kit as hk
from helix_kit.flow import Flow
from helix_kit.placement import Problem
from helix_kit.search.archive import Archive
from helix_kit.search.candidate import Candidate, Requirements
from helix_kit.search.evaluate import Evaluator
from helix_kit.simulator.scoring import Score


@pytest.fixture(scope="module")
def evaluator():
    return Evaluator(Problem.of(hk.Cluster.preset("single24"), hk.Model.preset("llama2-70b")), Requirements())


def simulated(start, tokens_per_s, window_s, node="L4-0"):
    """A candidate of one node that was simulated for `window_s` seconds."""
    score = Score(
        decode_tokens_per_s=tokens_per_s, prompt_latency_s=30 / tokens_per_s, decode_latency_s=0.5, window_s=window_s,
        quarter_tokens_per_s=tokens_per_s, half_tokens_per_s=tokens_per_s * (window_s >= 20),
    )  # fmt: skip
    return Candidate({node: (start, start + 2)}, Flow(1.0, {}, {}, ()), 1.0, score, tokens_per_s)


def test_runs_that_ended_early_are_only_known(evaluator):
    """Shorter runs look better here; they are neither parents nor rivals once there are whole runs."""
    archive = Archive(evaluator)
    archive.add([simulated(2 * i, 200.0 + i, 10.0) for i in range(4)])
    assert len(archive.ranked(40)) == 4, "there is nothing else"
    whole = [simulated(20 + 2 * i, 100.0 + i, 40.0) for i in range(4)]
    archive.add(whole)
    assert len(archive) == 8
    assert archive.ranked(40) == whole[::-1]
    assert archive.race_limits(40) == pytest.approx((70.0, 85.0))


def test_no_race_before_four_plans_are_known(evaluator):
    archive = Archive(evaluator)
    archive.add([simulated(2 * i, 100.0, 40.0) for i in range(3)])
    assert archive.race_limits(40) is None


def test_elites_differ_in_shape_and_at_most_two_have_one_depth(evaluator):
    archive = Archive(evaluator)
    archive.add([simulated(2 * i, 100.0 + i, 40.0) for i in range(5)])
    assert [c.value for c in archive.elites(40)] == [104.0, 103.0]


def test_equal_machines_in_another_order_are_one_entry(evaluator):
    archive = Archive(evaluator)
    archive.add([simulated(0, 100.0, 40.0, "L4-0"), simulated(0, 110.0, 40.0, "L4-1")])
    assert [c.value for c in archive.ranked(40)] == [110.0]
    archive.add([simulated(0, 90.0, 40.0, "T4-0")])
    assert len(archive) == 2


def test_the_floor_of_a_steady_run_is_well_below_the_least_lower_end_of_the_best_four(evaluator):
    archive = Archive(evaluator)
    archive.add([replace_half(simulated(2 * i, 100.0 + i, 40.0), 5.0) for i in range(3)])
    assert archive.floor_tokens_per_s() == 0, "three plans are too few"
    archive.add([replace_half(simulated(2 * i, 100.0 + i, 40.0), 5.0) for i in range(3, 6)])
    # Plans that are a tenth behind in their short runs were best in long ones.
    assert 0.8 * (102.0 - 5.0) < archive.floor_tokens_per_s() < 0.9 * (102.0 - 5.0)


def replace_half(candidate, half):
    return replace(candidate, score=replace(candidate.score, half_width_tokens_per_s=half))
