"""A result in a notebook: read where there is one, run where there is none."""

import pytest

from helix_kit.experiments import show
from helix_kit.experiments.machinery import showing


def test_a_finished_result_is_read_and_not_run(toy, tmp_path):
    first = show("first", folder=tmp_path)
    again = show("first", folder=tmp_path)
    assert toy["first"] == 1 and again.table.equals(first.table)
    assert again._repr_png_().startswith(b"\x89PNG")
    show("first", folder=tmp_path, run=True)
    assert toy["first"] == 1, "up to date, so not run again"


def test_a_missing_result_is_run_with_what_it_needs(toy, tmp_path):
    assert show("second", folder=tmp_path).table["y"].tolist() == [0, 4]
    assert toy == {"first": 1, "second": 1}


@pytest.mark.parametrize(("name", "columns"), [("geo-distributed", 2), ("scheduling-deep-dive", 4)])
def test_sources_are_columns_in_one_order(name, columns):
    table = showing.compare_sources(show(name))
    order = ["published simulation", "published prototype", "ours", "ours, own plan"]
    assert (
        list(table.columns) == [source for source in order if source in table.columns] and len(table.columns) == columns
    )
