"""A result in a notebook: read where there is one, run where there is none."""

import json

import pytest

from helix_kit.experiments import show
from helix_kit.experiments.machinery import showing
from helix_kit.experiments.machinery.running import run_all


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


def test_committed_results_stay_as_they_are_whatever_is_run(toy, tmp_path, monkeypatch):
    """A notebook that is executed after a change of code used to overwrite the files in figures/."""
    monkeypatch.setattr(showing, "CHECKOUT", tmp_path)
    committed = tmp_path / "figures"
    list(run_all(["second"], committed))
    assert show("second", run=True).table["y"].tolist() == [0, 4] and toy == {"first": 1, "second": 1}
    trail = json.loads((committed / "second.json").read_text())
    trail["inputs"]["code"] = "of another version"
    (committed / "second.json").write_text(json.dumps(trail))
    before = {path.name: path.read_bytes() for path in committed.iterdir() if path.is_file()}
    assert show("second", run=True).table["y"].tolist() == [0, 4]
    assert toy == {"first": 1, "second": 2}, "only the second was out of date"
    assert {path.name: path.read_bytes() for path in committed.iterdir() if path.is_file()} == before
    assert (tmp_path / "out" / "figures" / "second.png").is_file()
    show("second", run=True)
    assert toy == {"first": 1, "second": 2}, "the result in out/ is up to date"
    show("second")
    assert toy == {"first": 1, "second": 2}, "without run=True the committed one is shown"


@pytest.mark.parametrize(("name", "columns"), [("geo-distributed", 2), ("scheduling-deep-dive", 4)])
def test_sources_are_columns_in_one_order(name, columns):
    table = showing.compare_sources(show(name))
    order = ["published simulation", "published prototype", "ours", "ours, own plan"]
    assert (
        list(table.columns) == [source for source in order if source in table.columns] and len(table.columns) == columns
    )
