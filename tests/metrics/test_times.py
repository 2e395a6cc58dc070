"""Latencies of requests: a documented record of a public tool to the last digit, and sums by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helix_kit.metrics import RequestTimes, peak_concurrency
from helix_kit.report import Run
from helix_kit.workload.request import Request, RequestRecord

# The record of one request in AIPerf's guide "Working with Profile Export Files", in ms.
TTFT_MS, LATENCY_MS, TPOT_MS = 255.88656799999998, 297.52522799999997, 5.2048325
GAPS_MS = [4.898437, 5.316006, 4.801489, 5.674918, 4.811467, 5.097998, 5.504797, 5.533548]


def test_the_documented_record_of_aiperf():
    """Its latency is the first token and all gaps, and its inter_token_latency is what we and vLLM call TPOT."""
    times = (100 + np.cumsum([TTFT_MS, *GAPS_MS]) / 1e3).tolist()
    record = RequestRecord(
        Request(0, 100.0, 550, 9), outcome="finished", started_s=100.0, first_token_s=times[0], finished_s=times[-1],
        tokens_generated=9, token_times_s=times,
    )  # fmt: skip
    summary = Run([record], window=(100.0, 101.0)).summary()
    assert summary["ttft_s"]["mean"] * 1e3 == pytest.approx(TTFT_MS, abs=1e-6)
    assert summary["e2el_s"]["mean"] * 1e3 == pytest.approx(LATENCY_MS, abs=2e-3), "the guide's gaps are rounded"
    assert summary["tpot_s"]["mean"] * 1e3 == pytest.approx(TPOT_MS, abs=1e-6)
    assert summary["itl_s"]["mean"] * 1e3 == pytest.approx(TPOT_MS, abs=1e-6)
    assert summary["itl_s"]["max"] * 1e3 == pytest.approx(max(GAPS_MS), abs=1e-6)


def test_the_documented_throughputs_of_vllm():
    """10 requests, 1369 tokens in and 2212 out in 5.78 s: 1.73 requests/s and 382.7 tokens/s out, 619.6 in all."""
    outputs = [221] * 8 + [222] * 2
    inputs = [137] * 9 + [136]
    records = [
        RequestRecord(Request(i, 0.0, a, b), outcome="finished", started_s=0.0, first_token_s=0.07, finished_s=5.78,
                      tokens_generated=b, token_times_s=np.linspace(0.07, 5.78, b).tolist())
        for i, (a, b) in enumerate(zip(inputs, outputs, strict=True))
    ]  # fmt: skip
    summary = Run(records, window=(0.0, 5.78)).summary()
    assert summary["requests_per_s"] == pytest.approx(1.73, abs=0.005)
    assert summary["output_tokens_per_s"] == pytest.approx(382.89, rel=1e-3), "vLLM's page rounds the duration"
    both = summary["input_tokens_per_s"] + summary["output_tokens_per_s"]
    assert both == pytest.approx(619.85, rel=1e-3)
    assert summary["peak_concurrency"] == 10


SPANS = st.lists(st.tuples(st.integers(0, 20), st.integers(1, 20)), min_size=1, max_size=25)


@given(SPANS)
def test_peak_concurrency_by_counting(spans):
    """On whole seconds, a request from a to b is served in the seconds a to b - 1."""
    records = [RequestRecord(Request(i, a, 1, 1), outcome="finished", started_s=a, finished_s=a + n)
               for i, (a, n) in enumerate(spans)]  # fmt: skip
    served = [sum(a <= second < a + n for a, n in spans) for second in range(50)]
    assert peak_concurrency(RequestTimes.of(records), (0.0, 100.0)) == max(served)


def test_what_did_not_happen_is_nan():
    waiting = RequestRecord(Request(0, 1.0, 10, 5))
    rejected = RequestRecord(Request(1, 2.0, 10, 5), outcome="rejected", reason="too long")
    times = RequestTimes.of([waiting, rejected])
    assert np.isnan(times.ttft_s).all() and np.isnan(times.e2el_s).all() and np.isnan(times.tpot_s).all()
    assert times.ended_s[1] == 2.0 and times.lost.tolist() == [False, True]
    assert peak_concurrency(times, (0.0, 10.0)) == 0


def test_an_answer_of_one_token_has_no_tpot():
    record = RequestRecord(Request(0, 0.0, 5, 1), outcome="finished", first_token_s=1.0, finished_s=1.0,
                           tokens_generated=1, token_times_s=[1.0])  # fmt: skip
    summary = Run([record], window=(0.0, 2.0)).summary()
    assert summary["tpot_s"]["mean"] is None and summary["e2el_s"]["mean"] == 1.0
