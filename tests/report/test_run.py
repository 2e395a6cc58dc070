"""The report: numbers that can be checked by hand, exports that other programs read."""

from __future__ import annotations

import numpy as np
import pytest

from helix_kit.report import Run, TokenTimes, describe, merge
from helix_kit.workload.request import Request, RequestRecord


def record(number, arrival, times, output=None, **fields):
    return RequestRecord(
        Request(number, arrival, 10, output or len(times)), outcome="finished", first_token_s=times[0],
        finished_s=times[-1], tokens_generated=len(times), token_times_s=list(times), **fields,
    )  # fmt: skip


def test_summary_by_hand():
    run = Run(
        [record(0, 0.0, [1.0, 1.5, 2.5]), record(1, 2.0, [2.5, 2.75]),
         RequestRecord(Request(2, 3.0, 9999, 1), outcome="rejected", reason="too long")],
        window=(0.0, 4.0),
    )  # fmt: skip
    summary = run.summary()
    assert summary["decode_tokens_per_s"] == pytest.approx(3 / 4)
    assert summary["total_tokens_per_s"] == pytest.approx((3 + 20) / 4)
    assert summary["prompt_latency_s"]["avg"] == pytest.approx((1.0 + 0.5) / 2)
    assert summary["decode_latency_s"]["avg"] == pytest.approx((0.5 + 1.0 + 0.25) / 3)
    assert (summary["finished"], summary["rejected"], summary["reasons"]) == (2, 1, {"too long": 1})
    assert set(summary["prompt_latency_s"]) == {"avg", "p5", "p25", "p50", "p75", "p95"}


def test_only_what_ends_within_the_window_counts():
    run = Run([record(0, 0.0, [1.0, 2.0, 3.0, 4.0])], window=(1.5, 3.5))
    assert run.summary()["decode_tokens_per_s"] == pytest.approx(2 / 2)
    assert run.summary()["prompt_latency_s"]["avg"] is None


def test_flat_token_times_equal_those_of_the_records():
    records = [record(0, 0.0, [1.0, 1.5, 2.5]), record(1, 0.5, [1.25, 2.0])]
    mixed = TokenTimes(np.array([0, 1, 0, 1, 0]), np.array([1.0, 1.25, 1.5, 2.0, 2.5]))
    assert Run(records).summary() == Run(records, tokens=mixed).summary()
    assert Run(records, tokens=mixed).token_times_s(0) == [1.0, 1.5, 2.5]


def test_percentile_is_the_published_one():
    assert describe(np.arange(100.0))["p95"] == 95.0
    assert describe(np.array([3.0, 1.0, 2.0]))["p50"] == 2.0
    assert describe(np.array([]))["avg"] is None


def test_merge_adds_throughput_and_pools_latency():
    a, b = Run([record(0, 0.0, [1.0, 2.0])], window=(0, 4)), Run([record(0, 0.0, [3.0, 3.5])], window=(0, 4))
    both = merge([a, b]).summary()
    assert both["decode_tokens_per_s"] == pytest.approx(
        a.summary()["decode_tokens_per_s"] + b.summary()["decode_tokens_per_s"]
    )
    assert both["prompt_latency_s"]["avg"] == pytest.approx(2.0)


def test_an_empty_run_is_a_run():
    summary = Run([]).summary()
    assert summary["requests"] == 0 and summary["decode_tokens_per_s"] == 0.0


def test_a_run_begins_with_its_first_arrival():
    """An engine that was started 100 s ago has answered one request in 2 s: 4 tokens, of which 3 decoded."""
    run = Run([record(0, 100.0, [100.5, 101.0, 101.5, 102.0])])
    assert run.window == (100.0, 102.0)
    assert run.summary()["decode_tokens_per_s"] == 3 / 2 and run.summary()["output_tokens_per_s"] == 4 / 2
