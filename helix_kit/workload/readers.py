"""Readers of trace files, told apart by their columns or fields.

=============  ===============================================  ==================================================
format         columns of a CSV file, or fields of JSON lines   time
=============  ===============================================  ==================================================
ours           arrival_s, input_tokens, output_tokens           seconds
               (and prefix, answer, session_id: what is shared)
Azure          TIMESTAMP, ContextTokens, GeneratedTokens        date and time, UTC unless it names another offset
BurstGPT       Timestamp, Request tokens, Response tokens       seconds
vidur          arrived_at, num_prefill_tokens,                  seconds
               num_decode_tokens
splitwise-sim  arrival_timestamp, prompt_size, token_size       seconds
Mooncake       timestamp, input_length, output_length           milliseconds
               (and hash_ids, one for 512 tokens of the prompt)
Bailian        the same and chat_id (hash_ids: for 16 tokens)   seconds
LLMServingSim  arrival_time_ns, input_toks, output_toks         nanoseconds
ShareGPT       conversations                                    none
vLLM custom    prompt, perhaps output_tokens                    none
AIPerf         text or texts, or session_id and turns           milliseconds, if any
=============  ===============================================  ==================================================

CSV files may have commas, semicolons or tabs between columns, quotes, blank lines, and comments before the header.
JSON entries stand on a line each or in one list. Rows without output tokens, which are failed requests in BurstGPT and
Azure, are left out and counted. Traces of Mooncake and Bailian are published both in seconds and in milliseconds:
where a format's own unit gives an implausible rate and the other one does not, the other one is taken and said.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from helix_kit import _files
from helix_kit._wording import agreeing, count_text
from helix_kit.errors import InputError
from helix_kit.typical_request import MAX_REQUEST_TOKENS
from helix_kit.workload.prefixes import parse_segments, segments_of_hashes
from helix_kit.workload.request import Segments
from helix_kit.workload.tables import Entry, Table, csv_table, json_table
from helix_kit.workload.text_readers import CHARACTERS_A_TOKEN, DEFAULT_OUTPUT_TOKENS, format_of_texts, text_rows

SECONDS_IN = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
"""Units of time that a trace may have."""
CLOCK_S, LATEST_S = 1e8, 1e11
"""Seconds since the start of a trace are fewer than the first. Those of a clock since 1970 are fewer than the second,
which is the year 5138; as ms it is 1973."""
PLAUSIBLE_RATES_PER_S = (1e-3, 100.0)
"""Mean rates that the published traces stay well within, in requests/s."""
ROLES = ("arrival", "input", "output")


class Row(NamedTuple):
    """A request of a trace."""

    arrival_s: float
    input_tokens: int
    output_tokens: int
    session: str | None = None
    prompt: str | None = None
    prefix: Segments = ()
    answer: int | None = None


@dataclass
class Trace:
    """The content of a trace file."""

    format: str
    rows: list[Row]
    """In file order."""
    notes: list[str] = field(default_factory=list)
    """What a reader should know: the unit of time, and the rows left out."""


@dataclass(frozen=True)
class Format:
    """Names of the three columns or fields, and the unit of the first. "" stands for date and time."""

    name: str
    columns: tuple[str, str, str]
    unit: str
    other_unit: str = ""
    """A unit in which such traces are published as well."""
    hash_tokens: int = 0
    """Tokens of the prompt for each entry of ``hash_ids``; 0: as in Mooncake's or Bailian's traces, if that fits."""


CSV_FORMATS = (
    Format("ours", ("arrival_s", "input_tokens", "output_tokens"), "s"),
    Format("Azure", ("timestamp", "contexttokens", "generatedtokens"), ""),
    Format("BurstGPT", ("timestamp", "request tokens", "response tokens"), "s"),
    Format("vidur", ("arrived_at", "num_prefill_tokens", "num_decode_tokens"), "s"),
    Format("splitwise-sim", ("arrival_timestamp", "prompt_size", "token_size"), "s"),
)
JSON_FORMATS = (
    CSV_FORMATS[0],
    Format("Mooncake", ("timestamp", "input_length", "output_length"), "ms", "s", hash_tokens=512),
    Format("LLMServingSim", ("arrival_time_ns", "input_toks", "output_toks"), "ns"),
)
BAILIAN = Format("Bailian", ("timestamp", "input_length", "output_length"), "s", "ms", hash_tokens=16)
"""Told from Mooncake by the field ``chat_id``."""


def read_trace(path: str | Path, columns: Mapping[str, str] | None = None, time_unit: str | None = None) -> Trace:
    """Read a trace file.

    Parameters
    ----------
    path
        The file.
    columns
        Names of the columns or fields "arrival", "input" and "output" for a format that is not known. Columns that are
        left out keep the name of the known format.
    time_unit
        "s", "ms", "us" or "ns". None: the unit of the format, checked for plausibility where it is ambiguous.

    Returns
    -------
    Trace
        The requests in file order, and what should be known about them.

    Raises
    ------
    InputError
        The format is unknown, or a row is not as it demands. The message names file, line and column.
    """
    path = Path(path)
    if time_unit is not None and time_unit not in SECONDS_IN:
        raise InputError(f"expected one of {', '.join(SECONDS_IN)}", field="time_unit", value=time_unit)
    for role in columns or {}:
        if role not in ROLES:
            raise InputError(f"expected one of {', '.join(ROLES)}", field="columns", value=role)
    text = _files.read_text(path)
    is_json = text.lstrip()[:1] in ("{", "[")
    table = json_table(path, text) if is_json else csv_table(path, text)
    if table is None:
        raise InputError("expected at least one request, the trace is empty", where=path)
    text_format = format_of_texts(set(table.names)) if is_json and not columns else None
    if text_format is not None:
        return _trace_of_texts(text_format, table)
    known = _format_of(path, set(table.names), JSON_FORMATS if is_json else CSV_FORMATS, columns)
    trace = Trace(known.name, [])
    twice = next((c for c in known.columns if table.names.count(c) > 1), None)
    if twice is not None:
        raise InputError("expected the column once", where=table.where, field=twice)
    unit, parse = _time_reader(known, time_unit)
    left_out = 0
    sessions: dict[str, str] = {}
    for entry in table.entries:
        row = _with_session(entry, _row(entry, known.columns, parse), sessions)
        row = _with_content(row, entry, known)
        if known.name == "ours" and row.arrival_s < 0:
            expected = "expected a time of at least 0"
            raise InputError(expected, where=entry.where, field=known.columns[0], value=row.arrival_s)
        if row.input_tokens > 0 and row.output_tokens > 0:
            trace.rows.append(row)
        else:
            left_out += 1
    if time_unit is None and known.other_unit:
        trace.rows, unit = _plausible(trace, known, unit)
    if time_unit is None and unit == "s" and trace.rows:
        trace.rows, unit = _clock_times(trace, known, path)
    if unit and known.name != "ours":
        trace.notes.append(f"times are in {unit}")
    if left_out:
        if not trace.rows:
            raise InputError("expected at least one request with input and output tokens", where=path)
        are = agreeing(left_out, "is", "are")
        trace.notes.append(f"{count_text(left_out, 'row')} without input or output tokens {are} left out")
    return trace


def _format_of(path: Path, names: set[str], formats: tuple[Format, ...], columns: Mapping[str, str] | None) -> Format:
    if formats is JSON_FORMATS and "chat_id" in names:
        formats = (BAILIAN, *formats)
    given = {
        role: name if formats is not CSV_FORMATS else name.strip().casefold() for role, name in (columns or {}).items()
    }
    if len(given) == len(ROLES):
        return Format("given columns", (given["arrival"], given["input"], given["output"]), "s")
    for known in formats:
        mapped = tuple(given.get(role, name) for role, name in zip(ROLES, known.columns, strict=True))
        if set(mapped) <= names:
            return replace(known, columns=(mapped[0], mapped[1], mapped[2]))
    listed = "; ".join(f"{f.name}: {', '.join(f.columns)}" for f in dict.fromkeys((*CSV_FORMATS, *JSON_FORMATS)))
    raise InputError(
        f"no known trace format: expected the columns or fields of one of them ({listed}), or their names in `columns` "
        "(--columns arrival=NAME,input=NAME,output=NAME)",
        where=path, field="header", value=", ".join(sorted(names))[:100],
    )  # fmt: skip


def _time_reader(form: Format, time_unit: str | None) -> tuple[str, Callable[[str], float]]:
    """The unit's name ("" for date and time), and a function from a cell to seconds."""
    unit = time_unit or form.unit
    if not unit:
        return "", _seconds_of_date
    # Division where it is exact: 61.1 s in ms must be the nearest double to 61.1.
    per_second = round(1 / SECONDS_IN[unit])

    def parse(text: str) -> float:
        try:
            return float(text) / per_second
        except ValueError:
            if form.name == "given columns" and time_unit is None:
                return _seconds_of_date(text)
            raise

    return unit, parse


DATE = re.compile(r"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d)(\.\d+)?\s*(Z|[+-]\d\d:?\d\d)?", re.IGNORECASE)


def _seconds_of_date(text: str) -> float:
    """Seconds since 1970. A time without an offset is UTC, wherever the program runs."""
    match = DATE.fullmatch(text.strip())
    if match is None:
        raise ValueError(text)
    whole, fraction, offset = match.groups()
    # Azure writes seven decimals of a second. Python reads at most six, so they are added by hand.
    moment = datetime.fromisoformat(whole + (offset or "").upper())
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return moment.timestamp() + (float("0" + fraction) if fraction else 0.0)


def _row(entry: Entry, columns: tuple[str, str, str], parse: Callable[[str], float]) -> Row:
    missing = [column for column in columns if column not in entry.values]
    if missing:
        raise InputError(f"missing field: expected {', '.join(missing)}", where=entry.where)
    time, *lengths = (entry.values[column] for column in columns)
    try:
        arrival_s = parse(str(time))
    except ValueError:
        expected = "expected seconds, or a date and time such as 2024-05-10T00:00:01.5Z"
        raise InputError(expected, where=entry.where, field=columns[0], value=time) from None
    if not math.isfinite(arrival_s):
        raise InputError("expected a finite time", where=entry.where, field=columns[0], value=time)
    tokens = [_tokens(entry.where, name, value) for name, value in zip(columns[1:], lengths, strict=True)]
    return Row(arrival_s, tokens[0], tokens[1])


def _with_session(entry: Entry, row: Row, sessions: dict[str, str]) -> Row:
    """The row with its session, where the entry has one.

    In Bailian's traces each turn names the one before it: a conversation is called after its first turn.
    """
    found = entry.values
    session = found.get("session_id")
    if session == "":  # an empty cell
        session = None
    if session is None and "chat_id" in found:
        chat, parent = str(found["chat_id"]), str(found.get("parent_chat_id", "-1"))
        session = sessions[chat] = sessions.get(parent, chat)
    return row._replace(session=None if session is None else str(session))


def _trace_of_texts(name: str, table: Table) -> Trace:
    """The requests of a file with texts."""
    trace, without_length, left_out = Trace(name, []), 0, 0
    for entry in table.entries:
        rows = list(text_rows(name, entry.where, entry.values))
        left_out += not rows
        for row in rows:
            without_length += row.output_tokens is None
            at_s = float(len(trace.rows)) if row.arrival_s is None else row.arrival_s
            output = row.output_tokens or DEFAULT_OUTPUT_TOKENS
            trace.rows.append(Row(at_s, row.input_tokens, output, row.session, row.prompt))
    trace.notes.append(f"tokens are estimated from the texts, {CHARACTERS_A_TOKEN} characters each")
    if all(row.arrival_s == i for i, row in enumerate(trace.rows)):
        trace.notes.append("the file has no times: one request a second, which a rate scales")
    if without_length:
        trace.notes.append(f"{without_length} requests without a length of the answer get {DEFAULT_OUTPUT_TOKENS}")
    if left_out:
        trace.notes.append(f"{left_out} conversations without a question and an answer are left out")
    return trace


def _with_content(row: Row, entry: Entry, form: Format) -> Row:
    """The row with what the file says of the prompt's content: our column ``prefix``, or ``hash_ids``."""
    if form.name == "ours" and entry.values.get("prefix"):
        row = row._replace(prefix=parse_segments(str(entry.values["prefix"]), row.input_tokens, entry.where))
    if form.name == "ours" and entry.values.get("answer"):
        row = row._replace(answer=_tokens(entry.where, "answer", entry.values["answer"]))
    if (hashes := entry.values.get("hash_ids")) is not None:
        tokens_each = form.hash_tokens or _block_tokens(hashes, row.input_tokens)
        row = row._replace(prefix=segments_of_hashes(hashes, tokens_each, row.input_tokens, entry.where))
    return row


def _block_tokens(hashes: Any, input_tokens: int) -> int:
    """Tokens that each name of a block stands for in a format of its own: those of a known format whose number fits."""
    count = len(hashes) if isinstance(hashes, list) else 0
    usual = (known.hash_tokens for known in (*JSON_FORMATS, BAILIAN) if known.hash_tokens)
    return next((n for n in usual if -(-input_tokens // n) == count), -(-input_tokens // max(1, count)))


def _tokens(where: str, name: str, value: Any) -> int:
    try:
        number = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError):
        number = math.nan
    if not (0 <= number <= MAX_REQUEST_TOKENS and number == int(number)):
        expected = f"expected a whole number of tokens from 0 to {MAX_REQUEST_TOKENS:,}"
        raise InputError(expected, where=where, field=name, value=value)
    return int(number)


def _clock_times(trace: Trace, form: Format, path: Path) -> tuple[list[Row], str]:
    """The rows in seconds, where the file's times are those of a clock: since 1970, in a unit that their size tells."""
    first_s = min(row.arrival_s for row in trace.rows)
    unit, factor = "s", 1.0
    if first_s > LATEST_S:
        unit = next((u for u in ("ms", "us", "ns") if first_s * SECONDS_IN[u] <= LATEST_S), "")
        if not unit:
            raise InputError("expected times in seconds", where=path, field=form.columns[0], value=first_s)
        factor = SECONDS_IN[unit]
        trace.notes.append(f"times are far too large for seconds, so they are taken for {unit} since 1970")
    start_s = first_s * factor if form.name == "ours" and first_s * factor > CLOCK_S else 0.0
    if start_s:
        trace.notes.append("times count from 1970: the first request arrives at 0")
    if factor == 1.0 and not start_s:
        return trace.rows, unit
    return [row._replace(arrival_s=row.arrival_s * factor - start_s) for row in trace.rows], unit


def _plausible(trace: Trace, form: Format, unit: str) -> tuple[list[Row], str]:
    """The rows in the format's unit, or in its other one where only that gives a plausible rate."""
    times = [row.arrival_s for row in trace.rows]
    span_s = max(times) - min(times) if times else 0.0
    if span_s <= 0:
        return trace.rows, unit
    rate = (len(times) - 1) / span_s
    factor = SECONDS_IN[form.other_unit] / SECONDS_IN[unit]
    low, high = PLAUSIBLE_RATES_PER_S
    if low <= rate <= high or not low <= rate / factor <= high:
        return trace.rows, unit
    trace.notes.append(
        f"in {unit}, as usual for {form.name}, there would be {rate:.3g} requests/s, so times are taken for "
        f"{form.other_unit} ({rate / factor:.3g} requests/s); time_unit (--time-unit) decides otherwise"
    )
    return [row._replace(arrival_s=row.arrival_s * factor) for row in trace.rows], form.other_unit
