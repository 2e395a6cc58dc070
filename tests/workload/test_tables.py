"""Rows of CSV and JSON files know where they stand."""

from __future__ import annotations

from pathlib import Path

import pytest

from helix_kit.errors import InputError
from helix_kit.workload.tables import csv_table, json_table


def test_rows_of_a_csv_file_are_counted_from_its_first_line() -> None:
    table = csv_table(Path("t.csv"), "# a comment\n\nA; b\n1; 2\n\n3;4\n")
    assert table is not None and (table.names, table.where) == (("a", "b"), "t.csv:3")
    assert [(entry.where, entry.values) for entry in table.entries] == [
        ("t.csv:4", {"a": "1", "b": "2"}),
        ("t.csv:6", {"a": "3", "b": "4"}),
    ]
    assert csv_table(Path("t.csv"), "# nothing\n") is None


def test_entries_of_json_stand_on_lines_or_in_a_list(tmp_path: Path) -> None:
    table = json_table(Path("t.jsonl"), '{"a": 1}\n\n{"b": 2}\n')
    assert table is not None and table.names == ("a",)
    assert [(entry.where, dict(entry.values)) for entry in table.entries] == [
        ("t.jsonl:1", {"a": 1}),
        ("t.jsonl:3", {"b": 2}),
    ]
    path = tmp_path / "t.json"
    path.write_text('[{"a": 1}, 5]')
    table = json_table(path, path.read_text())
    assert table is not None
    with pytest.raises(InputError, match="expected a JSON object"):
        list(table.entries)
