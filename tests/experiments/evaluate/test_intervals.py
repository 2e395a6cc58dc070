"""Differences between two runs: of known samples, and their intervals."""

from __future__ import annotations

import numpy as np
import pytest

from helix_kit.experiments.evaluate.intervals import COMPARED, Block, Samples, differences, unsettled_medians
from helix_kit.report import Run
from helix_kit.workload.request import Request, RequestRecord


def samples(rate_per_s: float, latency_s: float, seed: int) -> Samples:
    """A minute of decode tokens at a rate, with latencies about a median, and two first tokens in every two seconds."""
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(int(60 * rate_per_s), [1 / 30] * 30)
    return Samples(
        tuple(
            Block(5 * latency_s * rng.lognormal(0.0, 0.2, 2), latency_s * rng.lognormal(0.0, 0.2, count))
            for count in counts
        )
    )


def test_known_differences_lie_in_their_intervals():
    found = {d.metric: d for d in differences(samples(100, 0.1, 1), samples(110, 0.12, 2))}
    speed, prompt, decode = (found[name] for name in
                             ("decode_tokens_per_s", "prompt_latency_p50_s", "decode_latency_p50_s"))  # fmt: skip
    assert speed.share == pytest.approx(0.1) and speed.low < 0.1 < speed.high and speed.low > 0
    assert decode.share == pytest.approx(0.2, abs=0.02) and decode.low < 0.2 < decode.high
    # Sixty prompts say less than six thousand decode tokens.
    assert prompt.high - prompt.low > 2 * (decode.high - decode.low)


def test_equal_runs_differ_by_nothing_and_a_missing_latency_is_left_out():
    one = samples(20, 0.1, 3)
    assert all(d.share == d.low == d.high == 0 for d in differences(one, one))
    only_decodes = Samples(tuple(Block(np.array([]), block.decode) for block in one.blocks))
    assert [d.metric for d in differences(only_decodes, only_decodes)] == [
        "decode_tokens_per_s",
        "decode_latency_p50_s",
    ]


def test_few_tokens_make_few_blocks():
    """Neighbours are joined in order, and nothing is lost."""
    few = Samples(tuple(Block(np.array([float(i)]), np.array([])) for i in range(30)))
    assert [block.prompt.tolist() for block in few.joined(5)] == [[6 * i + j for j in range(6)] for i in range(5)]


def test_samples_of_a_run_are_those_within_the_window_and_come_back():
    def record(index: int, *times_s: float) -> RequestRecord:
        return RequestRecord(Request(index, 1.0, 5, len(times_s)), token_times_s=list(times_s))

    found = Samples.of(Run([record(0, 1.5, 2.51, 7.0), record(1, 2.02, 5.01)], window=(2.0, 6.0)))
    for one in (found, Samples.read(found.to_bytes())):
        assert np.concatenate([b.prompt for b in one.blocks]) == pytest.approx([1.02])
        assert np.concatenate([b.decode for b in one.blocks]) == pytest.approx([1.01, 2.99])
        assert [i for i, b in enumerate(one.blocks) if len(b.decode)] == [3, 22] and one.decode_tokens == 2


def two_groups(share_of_fast: float, factor: float) -> Samples:
    """A thousand decode tokens of a fast and a slow pipeline: about 0.7 s and 2.5 s."""
    rng = np.random.default_rng(4)
    fast = round(1000 * share_of_fast)
    latencies = np.concatenate([0.7 * rng.uniform(0.95, 1.05, fast), 2.5 * rng.uniform(0.95, 1.05, 1000 - fast)])
    return Samples((Block(np.array([1.0, 1.01, 1.02]), latencies * factor),))


def test_a_median_between_two_groups_is_told_with_the_means():
    [told] = unsettled_medians(two_groups(0.5, 1.0), two_groups(0.5, 1.02))
    assert told.startswith("the median decode latency is not settled") and "(+2.0%)" in told
    low, high = (float(word) for word in told.partition("took ")[2].partition(" s.")[0].split(" to "))
    assert 0.65 < low < 0.75 and 2.3 < high < 2.7


def test_settled_medians_are_not_told():
    assert unsettled_medians(two_groups(0.7, 1.0), two_groups(0.7, 1.1)) == []
    only_prompts = Samples((Block(np.array([1.0, 1.0]), np.array([])),))
    assert unsettled_medians(only_prompts, only_prompts) == []
    assert unsettled_medians(two_groups(0.7, 1.0), two_groups(0.5, 1.0))  # one of the two is enough


def test_differences_say_which_medians_are_settled():
    def in_blocks(samples: Samples) -> Samples:
        latencies = np.random.default_rng(1).permutation(samples.blocks[0].decode)
        return Samples(tuple(Block(np.array([1.0]), part) for part in np.array_split(latencies, 30)))

    gap, none = in_blocks(two_groups(0.5, 1.0)), in_blocks(two_groups(0.7, 1.0))
    told = {d.metric: d.is_settled for d in differences(none, gap)}
    assert told == {COMPARED[0]: True, COMPARED[1]: True, COMPARED[2]: False}
    assert all(d.is_settled for d in differences(none, none))
