"""The Pareto front: what dominates what, and what each pick takes."""

import pytest

from helix_kit.flow import Flow
from helix_kit.search.candidate import Candidate
from helix_kit.search.front import pareto_front, pick, rows_of
from helix_kit.simulator.scoring import Score


def candidate(name, tokens_per_s, prompt_s, decode_s):
    score = Score(decode_tokens_per_s=tokens_per_s, prompt_latency_s=prompt_s, decode_latency_s=decode_s)
    return Candidate({name: (0, 2)}, Flow(1.0, {}, {}, ()), 1.0, score)


FAST, QUICK, CALM = candidate("a", 100, 9.0, 3.0), candidate("b", 85, 2.0, 4.0), candidate("c", 82, 8.0, 1.0)
SLOW, BEATEN = candidate("d", 40, 0.5, 0.5), candidate("e", 80, 9.5, 4.0)
ALL = [SLOW, BEATEN, CALM, QUICK, FAST, Candidate({"f": (0, 2)}, Flow(1.0, {}, {}, ()), 1.0)]


def test_the_front_is_what_no_other_beats_the_most_throughput_first():
    assert pareto_front(ALL) == [FAST, QUICK, CALM, SLOW]


def test_of_equal_measurements_one_is_kept():
    again = candidate("z", 100, 9.0, 3.0)
    assert pareto_front([FAST, again]) == [FAST]


@pytest.mark.parametrize(
    ("which", "expected"),
    # 80 % of 100 tokens/s leaves out the 40 of the quickest; its 40 / sqrt(0.25) is the largest quotient.
    [("throughput", FAST), ("prompt", QUICK), ("decode", CALM), ("balanced", SLOW)],
)
def test_picks(which, expected):
    assert pick(ALL, which) is expected


def test_rows_keep_the_names_of_the_plan_file():
    row = rows_of([FAST])[0].model_dump(mode="json")
    assert set(row) == {
        "decode_tokens_per_s", "prompt_latency_s", "decode_latency_s", "stages", "flow_tokens_per_s", "ease",
        "placement",
    }  # fmt: skip
    assert row["placement"] == {"a": [0, 2]}
