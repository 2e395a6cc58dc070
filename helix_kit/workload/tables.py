"""The rows of CSV and JSON files as tables, in which each row knows where it stands."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from helix_kit import _files
from helix_kit.errors import InputError


@dataclass(frozen=True)
class Entry:
    """A row of CSV or an object of JSON: where it stands, and its values by column."""

    where: str
    values: Mapping[str, Any]


class Table(NamedTuple):
    """The content of a file: the columns of its header, or the fields of its first object, and its entries."""

    names: tuple[str, ...]
    where: str
    """Where the names stand."""
    entries: Iterator[Entry]


def csv_table(path: Path, text: str) -> Table | None:
    """The table of a CSV file; None without a header. Line numbers count from the file's first line."""
    lines = text.splitlines()
    start = next((i for i, line in enumerate(lines) if line.strip() and not line.lstrip().startswith("#")), None)
    if start is None:
        return None
    delimiter = max(",;\t", key=lambda d: (lines[start].count(d), d == ","))
    reader = csv.reader(lines[start:], delimiter=delimiter, strict=True)

    def rows() -> Iterator[tuple[str, list[str]]]:
        """Each row with its place."""
        try:
            for row in reader:
                yield f"{path}:{start + reader.line_num}", row
        except csv.Error as error:
            raise InputError(f"not valid CSV: {error}", where=f"{path}:{start + reader.line_num}") from None

    def entries() -> Iterator[Entry]:
        for where, row in lines_with_place:
            if not any(cell.strip() for cell in row):
                continue
            if len(row) != len(names):
                raise InputError(f"expected {len(names)} columns, not {len(row)}", where=where)
            yield Entry(where, dict(zip(names, (cell.strip() for cell in row), strict=True)))

    lines_with_place = rows()
    _, header = next(lines_with_place)
    names = tuple(name.strip().casefold() for name in header)
    return Table(names, f"{path}:{start + 1}", entries())


def json_table(path: Path, text: str) -> Table | None:
    """The objects of a JSON file as a table with the fields of the first; None without an object."""
    entries = _json_entries(path, text)
    first = next(entries, None)
    return None if first is None else Table(tuple(first.values), first.where, itertools.chain([first], entries))


def _json_entries(path: Path, text: str) -> Iterator[Entry]:
    if text.lstrip().startswith("["):
        entries = _files.read_json(path)
        places = [(f"{path}: entry {number}", entry) for number, entry in enumerate(entries)]
    else:
        places = [(f"{path}:{n}", line) for n, line in enumerate(text.splitlines(), start=1) if line.strip()]
    for where, entry in places:
        value = _files.parse_json(entry, where, lines=False) if isinstance(entry, str) else entry
        if not isinstance(value, dict):
            raise InputError("expected a JSON object", where=where, value=entry, field="entry")
        yield Entry(where, value)
