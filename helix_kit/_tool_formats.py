"""A run in the files of other tools: the result of `vllm bench serve`, and AIPerf's line for each request."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from helix_kit import _files
from helix_kit.metrics import SLO, statistics

if TYPE_CHECKING:
    from helix_kit.report import Run

VLLM_QUANTILES = (50, 75, 90, 95, 99)


def vllm_result(run: Run, slo: SLO | None = None) -> dict[str, Any]:
    """The fields of the result file that ``vllm bench serve --save-result --save-detailed`` writes.

    As there, latencies are in ms and those of finished requests, throughputs are over the whole duration, and the lists
    have one entry for each request that ended. One that failed has no tokens, a latency of 0, and its error.
    """
    times, duration_s = run.times, run.window_s
    done = np.flatnonzero(times.finished)
    ended = [i for i, record in enumerate(run.records) if record.outcome != "in_flight"]
    gaps_of = {int(i): np.diff(run.token_times_s(int(i))).tolist() for i in done}
    inputs = [run.records[i].request.input_tokens for i in done]
    outputs = times.output_tokens[done].tolist()
    tpots = times.tpot_s[done]
    sent_s = np.where(np.isnan(times.started_s), times.arrival_s, times.started_s)

    def of_each(values: np.ndarray) -> list[float]:
        return [float(values[i]) if times.finished[i] else 0.0 for i in ended]

    measures = {
        "ttft": times.ttft_s[done],
        "tpot": tpots[~np.isnan(tpots)],
        "itl": np.array([gap for gaps in gaps_of.values() for gap in gaps]),
        "e2el": times.e2el_s[done],
    }

    def per_s(amount: float) -> float:
        return amount / duration_s if duration_s > 0 else 0.0

    result: dict[str, Any] = {
        "backend": "helix_kit",
        "endpoint_type": "openai",
        "model_id": run.facts.get("model"),
        "tokenizer_id": run.facts.get("model"),
        "num_prompts": len(run.records),
        "request_rate": per_s(len(run.records)) if run.facts.get("concurrency") is None else "inf",
        "max_concurrency": run.facts.get("concurrency"),
        "duration": duration_s,
        "completed": len(done),
        "failed": int(times.lost.sum()),
        "total_input_tokens": sum(inputs),
        "total_output_tokens": sum(outputs),
        "request_throughput": per_s(len(done)),
        "request_goodput": run.goodput(slo).requests_per_s if slo is not None else None,
        "output_throughput": per_s(sum(outputs)),
        "total_token_throughput": per_s(sum(inputs) + sum(outputs)),
        "max_concurrent_requests": run.summary()["peak_concurrency"],
        "input_lens": [run.records[i].request.input_tokens for i in ended],
        "output_lens": [int(times.output_tokens[i]) if times.finished[i] else 0 for i in ended],
        "ttfts": of_each(times.ttft_s),
        "itls": [gaps_of.get(i, []) for i in ended],
        "latencies": of_each(times.e2el_s),
        "start_times": times.arrival_s[ended].tolist(),
        "queue_times": (sent_s - times.arrival_s)[ended].tolist(),
        "generated_texts": ["" for _ in ended],
        "errors": ["" if times.finished[i] else run.records[i].reason or run.records[i].outcome for i in ended],
    }
    for name, values in measures.items():
        found = statistics(values * 1e3)
        result |= {f"mean_{name}_ms": found["mean"] or 0.0, f"std_{name}_ms": found["std"] or 0.0,
                   f"median_{name}_ms": found["p50"] or 0.0}  # fmt: skip
        result |= {f"p{q}_{name}_ms": found[f"p{q}"] or 0.0 for q in VLLM_QUANTILES}
    return result


def aiperf_lines(run: Run) -> list[dict[str, Any]]:
    """The lines of AIPerf's ``profile_export.jsonl``: metadata, metrics with units, and the error of each request."""

    def ns(seconds: float) -> int:
        return round(seconds * 1e9)

    def metric(value: Any, unit: str) -> dict[str, Any]:
        return {"value": value, "unit": unit}

    lines = []
    times = run.times
    for i, record in enumerate(run.records):
        if record.outcome == "in_flight":
            continue
        request, token_times = record.request, run.token_times_s(i)
        start_s = request.arrival_s
        metadata = {
            "session_num": i,
            "x_request_id": str(request.id),
            "x_correlation_id": request.session or str(request.id),
            "conversation_id": request.session or str(request.id),
            "turn_index": 0,
            "request_start_ns": ns(start_s),
            "request_ack_ns": None,
            "request_end_ns": ns(record.finished_s if record.finished_s is not None else start_s),
            "worker_id": "helix_kit",
            "record_processor_id": "helix_kit",
            "benchmark_phase": "profiling",
            "was_cancelled": record.outcome == "cancelled",
            "cancellation_time_ns": None,
        }
        error = None
        metrics: dict[str, Any] = {"error_isl": metric(request.input_tokens, "tokens")}
        if record.outcome == "finished":
            gap_ms = float(times.tpot_s[i]) * 1e3
            metrics = {
                "input_sequence_length": metric(request.input_tokens, "tokens"),
                "output_sequence_length": metric(int(times.output_tokens[i]), "tokens"),
                "output_token_count": metric(int(times.output_tokens[i]), "tokens"),
                "request_latency": metric(float(times.e2el_s[i]) * 1e3, "ms"),
                "time_to_first_token": metric(float(times.ttft_s[i]) * 1e3, "ms"),
                "inter_chunk_latency": metric((np.diff(token_times) * 1e3).tolist(), "ms"),
            }
            if times.output_tokens[i] > 1:
                metrics["inter_token_latency"] = metric(gap_ms, "ms")
                if gap_ms > 0:
                    metrics["output_token_throughput_per_user"] = metric(1e3 / gap_ms, "tokens/sec/user")
        else:
            code = 429 if record.outcome == "rejected" else 499 if record.outcome == "cancelled" else 500
            error = {"code": code, "type": record.outcome, "message": record.reason or record.outcome}
        lines.append({"metadata": metadata, "metrics": metrics, "error": error})
    return lines


def write_vllm_json(run: Run, path: str | Path, slo: SLO | None) -> None:
    """Write `vllm_result` as JSON."""
    _files.write_result(path, json.dumps(vllm_result(run, slo)) + "\n")


def write_aiperf_jsonl(run: Run, path: str | Path) -> None:
    """Write `aiperf_lines`, one a line."""
    text = "".join(json.dumps(line) + "\n" for line in aiperf_lines(run))
    _files.write_result(path, text)
