"""Writes requests as files: our own CSV, and Mooncake's JSON lines. `readers` reads both."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from helix_kit import _files
from helix_kit.workload.prefixes import format_segments, mooncake_entries
from helix_kit.workload.request import Request

COLUMNS = ("arrival_s", "input_tokens", "output_tokens")
CONTENT_COLUMNS = ("prefix", "answer", "session_id")
"""What prompts share. These columns are written only if a request has one of them."""


def write_csv(requests: Sequence[Request], path: str | Path) -> None:
    """Write a CSV file from which `read_trace` reads equal requests."""
    has_content = any(r.prefix or r.session is not None or r.answer is not None for r in requests)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((*COLUMNS, *CONTENT_COLUMNS) if has_content else COLUMNS)
    for r in requests:
        content = (format_segments(r.prefix), "" if r.answer is None else r.answer, r.session or "")
        sizes = (repr(r.arrival_s), r.input_tokens, r.output_tokens)
        writer.writerow((*sizes, *content) if has_content else sizes)
    _files.write_result(path, text.getvalue())


def write_mooncake(requests: Sequence[Request], path: str | Path) -> None:
    """Write a trace in Mooncake's format (JSON lines): shared contents as ``hash_ids`` of 512 tokens each."""
    _files.write_result(path, "".join(f"{json.dumps(entry)}\n" for entry in mooncake_entries(requests)))
