"""Readers of trace files: Azure LLM inference traces, BurstGPT, Mooncake and our own CSV, told apart by columns.

==========  =======================================  ==========================================
format      columns or fields                        time
==========  =======================================  ==========================================
Azure       TIMESTAMP, ContextTokens,                date and time; seconds since the first row
            GeneratedTokens
BurstGPT    Timestamp, Model, Request tokens,        seconds
            Response tokens, ...
Mooncake    JSON lines with timestamp,               milliseconds
            input_length, output_length
ours        arrival_s, input_tokens, output_tokens   seconds
==========  =======================================  ==========================================

Rows without output tokens, which are failed requests in BurstGPT and Azure, are left out.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

from helix_kit import _files
from helix_kit.errors import InputError

Row = tuple[float, int, int]
"""Arrival in seconds, input tokens, output tokens."""


def read_trace(path: str | Path) -> tuple[str, list[Row]]:
    """The format's name and the rows of a trace file, in file order.

    A row that its format does not allow is an InputError that names file and line.
    """
    path = Path(path)
    text = _files.read_text(path)
    first = next((line for line in text.splitlines() if line.strip()), "")
    if first.lstrip().startswith("{"):
        return "mooncake", list(_mooncake(path, text))
    columns = {c.strip().casefold() for c in first.split(",")}
    for name, needed, parse in _CSV_FORMATS:
        if set(needed) <= columns:
            return name, list(_csv_rows(path, text, needed, parse))
    known = "; ".join(f"{name}: {', '.join(needed)}" for name, needed, _ in _CSV_FORMATS)
    raise InputError(f"no known trace format: expected JSON lines (Mooncake) or a CSV with the columns of {known}",
                     where=path, field="header", value=first[:80])  # fmt: skip


def _azure_time(text: str) -> float:
    # Azure writes seven decimals of a second. Python reads at most six.
    whole, _, fraction = text.replace("+00:00", "").partition(".")
    return datetime.fromisoformat(whole).timestamp() + (float("0." + fraction) if fraction else 0.0)


_CSV_FORMATS: tuple[tuple[str, tuple[str, str, str], Callable[[str], float]], ...] = (
    ("ours", ("arrival_s", "input_tokens", "output_tokens"), float),
    ("azure", ("timestamp", "contexttokens", "generatedtokens"), _azure_time),
    ("burstgpt", ("timestamp", "request tokens", "response tokens"), float),
)


def _csv_rows(path: Path, text: str, needed: tuple[str, str, str], parse: Callable[[str], float]) -> Iterator[Row]:
    reader = csv.reader(text.splitlines())
    header = [c.strip().casefold() for c in next(reader)]
    at = [header.index(column) for column in needed]
    for row in reader:
        if not row:
            continue
        if len(row) <= max(at):
            raise InputError(f"expected {len(header)} columns", where=f"{path}:{reader.line_num}")
        yield from _row(f"{path}:{reader.line_num}", needed, [row[i] for i in at], parse)


def _mooncake(path: Path, text: str) -> Iterator[Row]:
    fields = ("timestamp", "input_length", "output_length")
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            entry = json.loads(line)
            values = [str(entry[f]) for f in fields]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise InputError(f"expected a JSON object with {', '.join(fields)} ({error!r})", where=where) from None
        yield from _row(where, fields, values, lambda value: float(value) / 1e3)


def _row(where: str, names: tuple[str, str, str], values: list[str], parse: Callable[[str], float]) -> Iterator[Row]:
    try:
        time_s = parse(values[0])
    except ValueError:
        raise InputError("expected a time", where=where, field=names[0], value=values[0]) from None
    lengths = []
    for name, value in zip(names[1:], values[1:], strict=True):
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not (number >= 0 and number == int(number)):
            raise InputError("expected a whole number of tokens", where=where, field=name, value=value)
        lengths.append(int(number))
    if not math.isfinite(time_s):
        raise InputError("expected a finite time", where=where, field=names[0], value=values[0])
    if lengths[0] > 0 and lengths[1] > 0:
        yield time_s, lengths[0], lengths[1]
