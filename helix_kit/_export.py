"""A run on disk: CSV of the requests, JSON of the summary, Chrome trace of the batches."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helix_kit import _files

if TYPE_CHECKING:
    from helix_kit.report import Run

COLUMNS = (
    "id",
    "arrival_s",
    "input_tokens",
    "output_tokens",
    "outcome",
    "reason",
    "started_s",
    "first_token_s",
    "finished_s",
    "tokens_generated",
    "restarts",
    "pipeline",
)


def write_csv(run: Run, path: str | Path) -> None:
    """One row a request."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for record in run.records:
        request = record.request
        stages = " ".join(f"{s.node}[{s.start}:{s.end}]" for s in record.pipeline or ())
        times = (record.started_s, record.first_token_s, record.finished_s)
        writer.writerow(
            [
                request.id,
                repr(request.arrival_s),
                request.input_tokens,
                request.output_tokens,
                record.outcome,
                record.reason or "",
                *("" if t is None else repr(float(t)) for t in times),
                record.tokens_generated,
                record.restarts,
                stages,
            ]
        )
    _files.write_result(path, text.getvalue())


def write_json(run: Run, path: str | Path | None) -> str:
    """The summary as JSON."""
    text = json.dumps(run.summary(), indent=1) + "\n"
    if path is not None:
        _files.write_result(path, text)
    return text


def write_perfetto(run: Run, path: str | Path) -> None:
    """Chrome's trace event format: a process for each node, complete events for its batches, counters for its KV."""
    nodes = sorted({batch.node for batch in run.batches} | set(run.kv_samples))
    ids = {node: index + 1 for index, node in enumerate(nodes)}
    events: list[dict[str, Any]] = [
        {"ph": "M", "pid": pid, "tid": 0, "name": "process_name", "args": {"name": node}} for node, pid in ids.items()
    ]
    for batch in run.batches:
        events.append(
            {
                "ph": "X",
                "pid": ids[batch.node],
                "tid": 0,
                "ts": batch.start_s * 1e6,
                "dur": (batch.end_s - batch.start_s) * 1e6,
                "name": _batch_name(batch.prefill_tokens, batch.decode_requests),
                "args": {"prefill_tokens": batch.prefill_tokens, "decode_requests": batch.decode_requests},
            }
        )
    for node, samples in run.kv_samples.items():
        for time_s, used in samples:
            events.append(
                {"ph": "C", "pid": ids[node], "ts": time_s * 1e6, "name": "KV", "args": {run.kv_unit: float(used)}}
            )
    _files.write_result(path, json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}))


def _batch_name(prefill_tokens: int, decode_requests: int) -> str:
    parts = [f"prefill {prefill_tokens}"] * (prefill_tokens > 0) + [f"decode {decode_requests}"] * (decode_requests > 0)
    return " + ".join(parts)
