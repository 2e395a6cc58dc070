"""Files of other tools: their own formulas, applied to the lines that were written, give what stands in them."""

from __future__ import annotations

import json

import numpy as np
import pytest

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
    latencies = [t + sum(i) for t, i in zip(r["ttfts"], r["itls"], strict=True)]
    tpots = [(e - t) / (n - 1) for e, t, n in zip(latencies, r["ttfts"], r["output_lens"], strict=True) if n > 1]
    itls = [gap for one in r["itls"] for gap in one]
    for name, values in (("ttft", r["ttfts"]), ("tpot", tpots), ("itl", itls), ("e2el", latencies)):
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
