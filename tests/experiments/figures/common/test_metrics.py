"""Metrics under their published names, of a run that can be checked by hand."""

from __future__ import annotations

import pytest

from helix_kit.experiments.figures.common.metrics import latencies_of, latency_name, metrics_of
from helix_kit.report import Run
from helix_kit.workload.request import Request, RequestRecord


def record(number: int, arrival_s: float, times: list[float]) -> RequestRecord:
    return RequestRecord(
        Request(number, arrival_s, 10, len(times)), outcome="finished", started_s=arrival_s, first_token_s=times[0],
        finished_s=times[-1], tokens_generated=len(times), token_times_s=times,
    )  # fmt: skip


def test_latencies_of_two_requests():
    """Prompts of 1 and 3 s, and decode steps of 0.5 s."""
    run = Run([record(0, 0.0, [1.0, 1.5, 2.0]), record(1, 0.0, [3.0, 3.5])], window=(0.0, 10.0))
    found = metrics_of(run)
    assert found["prompt_latency_avg_s"] == pytest.approx(2.0)
    assert found["decode_latency_p50_s"] == pytest.approx(0.5)
    # Three decode steps in ten seconds.
    assert found["decode_tokens_per_s"] == pytest.approx(0.3)
    assert set(found) - set(latencies_of(run)) == {"decode_tokens_per_s"}
    assert len(found) == 1 + 2 * 6


def test_a_latency_that_no_request_has_is_left_out():
    run = Run([record(0, 0.0, [1.0])], window=(0.0, 10.0))
    assert {name.split("_")[0] for name in latencies_of(run)} == {"prompt"}
    assert latency_name("decode", "p95") == "decode_latency_p95_s"
