"""The value of a plan: tokens/s, marked down for latency."""

import pytest

from helix_kit.search.candidate import LatencyLimits, mean_score, value_of
from helix_kit.simulator.scoring import Score

SCORE = Score(decode_tokens_per_s=160.0, prompt_latency_s=4.0, decode_latency_s=2.0)


@pytest.mark.parametrize(
    ("limits", "value"),
    [
        (LatencyLimits(), 160.0),
        (LatencyLimits(decode_s=2.0, prompt_s=4.0), 160.0),
        (LatencyLimits(decode_s=1.0), 10.0),  # twice the limit: a sixteenth
        (LatencyLimits(decode_s=1.0, prompt_s=2.0), 0.625),
    ],
)
def test_a_latency_above_its_limit_marks_down(limits, value):
    assert value_of(SCORE, limits, online=False) == pytest.approx(value)


def test_online_the_quicker_plan_is_better():
    # 1 + 2 + 4 / 20 seconds
    assert value_of(SCORE, LatencyLimits(), online=True) == pytest.approx(50.0)


def test_limits_are_widened_where_they_are_given():
    assert LatencyLimits(decode_s=2.0).widened(1.5) == LatencyLimits(decode_s=3.0)


def test_the_mean_of_scores_is_taken_number_by_number():
    mean = mean_score([SCORE, Score(decode_tokens_per_s=80.0, decode_latency_s=1.0)])
    assert (mean.decode_tokens_per_s, mean.prompt_latency_s, mean.decode_latency_s) == (120.0, 2.0, 1.5)
