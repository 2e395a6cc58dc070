"""Statistics for the samplers: the histogram counts every request once, in a cell that contains it."""

from __future__ import annotations

import csv
import sys

from hypothesis import given
from hypothesis import strategies as st

from helix_kit import _files
from helix_kit.workload import Workload, fit

LENGTHS = st.integers(1, 20_000)


@given(st.lists(st.tuples(LENGTHS, LENGTHS), min_size=1, max_size=40))
def test_each_request_is_in_exactly_one_cell(lengths):
    cells = fit.length_histogram(Workload.of((0.0, a, b) for a, b in lengths))
    for a, b in lengths:
        assert sum(low <= a < high and lo <= b < hi for low, high, lo, hi, _ in cells) == 1
    assert sum(count for *_, count in cells) == len(lengths)


def test_arrivals_are_counted_in_intervals_from_the_first_request():
    workload = Workload.of((t, 1, 1) for t in (10.0, 12.9, 13.1, 19.5))
    assert fit.arrival_counts(workload) == [2, 1, 0, 1]


def test_the_program_writes_tables_that_the_samplers_read(tmp_path, monkeypatch):
    trace = tmp_path / "mine.csv"
    Workload.of([(0.0, 100, 50), (1.0, 3000, 10), (4.0, 200, 20)]).to_csv(trace)
    (tmp_path / "workload").mkdir()
    monkeypatch.setattr(_files, "data_dir", lambda: tmp_path)
    monkeypatch.setattr(sys, "argv", ["fit", str(trace), "mine", "--max-input", "2048"])
    fit.main()
    rows = {
        kind: list(csv.DictReader((tmp_path / "workload" / f"mine_{kind}.csv").open(newline="")))
        for kind in ("lengths", "arrivals")
    }
    assert sum(int(r["requests"]) for r in rows["lengths"]) == 2, "one request is longer than the limit"
    assert [int(r["requests"]) for r in rows["arrivals"]] == [2, 1], "arrivals count all requests"
