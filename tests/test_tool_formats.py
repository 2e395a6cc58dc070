"""Files of other tools: their own formulas, applied to the lines that were written, give what stands in them."""

from __future__ import annotations

import json
from typing import Literal

import numpy as np
import pytest
from pydantic import BaseModel, ConfigDict

from helix_kit.metrics import SLO
from helix_kit.report import Run
from helix_kit.workload.request import Request, RequestRecord


@pytest.fixture
def run():
    def answered(i, arrival, times):
        return RequestRecord(Request(i, arrival, 10 + i, len(times), session=f"s{i}"), outcome="finished",
                             started_s=arrival, first_token_s=times[0], finished_s=times[-1],
                             tokens_generated=len(times), token_times_s=list(times))  # fmt: skip

    return Run(
        [answered(0, 0.0, [0.5, 0.75, 1.5]), answered(1, 1.0, [1.25]), answered(2, 1.5, [2.5, 2.75, 3.0, 3.5]),
         RequestRecord(Request(3, 2.0, 9, 4), outcome="rejected", reason="HTTP 429", finished_s=2.1),
         RequestRecord(Request(4, 2.0, 9, 4), outcome="failed", reason="died", finished_s=3.0)],
        window=(0.0, 4.0), facts={"model": "m"},
    )  # fmt: skip


def test_vllm(run, tmp_path):
    run.to_vllm_json(tmp_path / "r.json", SLO(ttft_s=0.6))
    r = json.loads((tmp_path / "r.json").read_text())
    # vLLM appends every output to every list and takes its statistics from those that succeeded.
    names = ("input_lens", "output_lens", "ttfts", "itls", "latencies", "start_times", "queue_times", "errors",
             "generated_texts")  # fmt: skip
    rows = [dict(zip(names, row, strict=True)) for row in zip(*(r[name] for name in names), strict=True)]
    good = [row for row in rows if not row["errors"]]
    latencies = [row["ttfts"] + sum(row["itls"]) for row in good]
    assert latencies == pytest.approx([row["latencies"] for row in good])
    tpots = [(e - row["ttfts"]) / (row["output_lens"] - 1)
             for e, row in zip(latencies, good, strict=True) if row["output_lens"] > 1]  # fmt: skip
    itls = [gap for row in good for gap in row["itls"]]
    assert [(row["output_lens"], row["ttfts"], row["itls"]) for row in rows if row["errors"]] == [(0, 0.0, [])] * 2
    firsts = [row["ttfts"] for row in good]
    for name, values in (("ttft", firsts), ("tpot", tpots), ("itl", itls), ("e2el", latencies)):
        ms = 1e3 * np.array(values)
        assert r[f"mean_{name}_ms"] == pytest.approx(np.mean(ms)) and r[f"std_{name}_ms"] == pytest.approx(np.std(ms))
        assert r[f"median_{name}_ms"] == pytest.approx(np.median(ms))
        assert r[f"p99_{name}_ms"] == pytest.approx(np.percentile(ms, 99))
    assert (r["completed"], r["failed"], r["num_prompts"]) == (3, 2, 5)
    assert r["request_throughput"] == 3 / 4 and r["output_throughput"] == 8 / 4
    assert r["total_token_throughput"] == (8 + 33) / 4 and r["request_goodput"] == 2 / 4
    assert r["errors"] == ["", "", "", "HTTP 429", "died"] and r["model_id"] == "m"


def test_aiperf(run, tmp_path):
    run.to_aiperf_jsonl(tmp_path / "p.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert len(lines) == 5
    for line in lines[:3]:
        m = {name: metric["value"] for name, metric in line["metrics"].items()}
        span_ms = (line["metadata"]["request_end_ns"] - line["metadata"]["request_start_ns"]) / 1e6
        assert m["request_latency"] == pytest.approx(span_ms)
        assert m["time_to_first_token"] + sum(m["inter_chunk_latency"]) == pytest.approx(m["request_latency"])
        if m["output_sequence_length"] > 1:
            assert m["inter_token_latency"] == pytest.approx(np.mean(m["inter_chunk_latency"]))
    assert lines[0]["error"] is None and lines[0]["metadata"]["conversation_id"] == "s0"
    assert lines[3]["error"]["code"] == 429 and lines[4]["error"]["message"] == "died"
    assert set(lines[3]["metrics"]) == {"error_isl"}


class Metadata(BaseModel):
    """The fields that AIPerf's reader takes (`MetricRecordMetadata`, 2026-11): any other one is an error."""

    model_config = ConfigDict(extra="forbid", strict=True)
    session_num: int
    request_start_ns: int
    request_end_ns: int
    worker_id: str
    record_processor_id: str
    benchmark_phase: Literal["warmup", "profiling"]
    request_num: int | None = None
    x_request_id: str | None = None
    x_correlation_id: str | None = None
    conversation_id: str | None = None
    turn_index: int | None = None
    credit_issued_ns: int | None = None
    credit_received_ns: int | None = None
    request_ack_ns: int | None = None
    was_cancelled: bool = False
    cancellation_time_ns: int | None = None
    clock_offset_ns: int | None = None


class Metric(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    value: float | int | list[float]
    unit: str


class Error(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    message: str
    code: int | None = None
    type: str | None = None


class Line(BaseModel):
    metadata: Metadata
    metrics: dict[str, Metric]
    error: Error | None = None


def test_aiperf_reads_every_line(run, tmp_path):
    run.to_aiperf_jsonl(tmp_path / "p.jsonl")
    lines = [Line.model_validate_json(text) for text in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert [line.error is None for line in lines] == [True, True, True, False, False]
    units = {name: metric.unit for line in lines for name, metric in line.metrics.items()}
    assert units["time_to_first_token"] == units["request_latency"] == units["inter_token_latency"] == "ms"
    assert len({line.metadata.x_request_id for line in lines}) == 5
