"""The order in which experiments run, and which of them run at the same time."""

import json
from dataclasses import replace

import pytest

from helix_kit.errors import HelixKitError, InputError
from helix_kit.experiments.machinery import catalogue, running
from helix_kit.experiments.machinery.files import load
from helix_kit.experiments.machinery.recording import is_current, run_experiment
from helix_kit.experiments.machinery.registry import Context, NotAvailableError
from helix_kit.experiments.machinery.running import in_order, next_to_start, run_all


@pytest.mark.parametrize("fast_first", [False, True])
def test_fast_results_never_lie_among_full_ones(toy, tmp_path, fast_first):
    run_experiment("first", tmp_path, Context(fast=fast_first))
    assert bool(json.loads((tmp_path / "first.json").read_text())["note"]) == fast_first
    before = (tmp_path / "first.csv").read_bytes()
    for name in ("first", "second"):
        with pytest.raises(InputError, match=r"first\.json: inputs\.fast"):
            list(run_all([name], tmp_path, fast=not fast_first))
    assert (tmp_path / "first.csv").read_bytes() == before and toy == {"first": 1, "second": 0}


def test_needed_results_come_first_and_count(toy, tmp_path):
    assert in_order(["second"]) == ["first", "second"]
    assert [(d.name, d.ran) for d in run_all(["second"], tmp_path)] == [("first", True), ("second", True)]
    assert list(load("second", tmp_path)["y"]) == [0, 4]
    (tmp_path / "first.csv").write_text("x,y\n0,5\n1,6\n")
    assert not is_current("second", tmp_path, Context())


def test_timed_ones_run_alone_and_last():
    waiting = ["scaling", "azure-trace", "agreement", "gpu-catalogue"]
    assert next_to_start(waiting, [], set(), 2) == ["azure-trace", "gpu-catalogue"]
    assert next_to_start(["scaling", "agreement"], ["azure-trace"], set(), 2) == []
    assert next_to_start(["scaling", "agreement"], [], set(), 2) == ["scaling"]
    assert next_to_start(["azure-trace"], ["scaling"], set(), 2) == []


def test_what_cannot_be_run_here_is_skipped_and_said(toy, tmp_path, monkeypatch):
    def absent(context):
        raise NotAvailableError("no torch")

    known = catalogue.experiments()
    monkeypatch.setitem(known, "first", replace(known["first"], compute=absent))
    (done,) = run_all(["first"], tmp_path)
    assert not done.ran and done.skipped == "no torch" and not (tmp_path / "first.csv").exists()


def test_up_to_date_is_seen_without_starting_workers(toy, tmp_path, monkeypatch):
    list(run_all(["second"], tmp_path))
    monkeypatch.setattr(running, "LineWorkers", lambda *_: pytest.fail("workers were started"))
    assert [(d.name, d.ran) for d in run_all(["second"], tmp_path, jobs=2)] == [("first", False), ("second", False)]


def test_side_by_side_gives_the_same_files(tmp_path):
    names = ["gpu-catalogue", "azure-trace"]
    for folder, jobs in (("one", 1), ("two", 2)):
        (tmp_path / folder).mkdir()
        done = list(run_all(names, tmp_path / folder, fast=True, jobs=jobs))
        assert {d.name for d in done if d.ran and not d.skipped} == set(names)
    for name in names:
        one, two = ((tmp_path / folder / f"{name}.csv").read_bytes() for folder in ("one", "two"))
        assert one == two


def test_what_goes_wrong_side_by_side_is_one_message(tmp_path):
    """The picture of what is needed lies where a table should be."""
    (tmp_path / "azure-trace.csv").mkdir()
    with pytest.raises(HelixKitError, match=r"azure-trace"):
        list(run_all(["azure-trace"], tmp_path, fast=True, jobs=2))


def test_forced_is_only_what_is_named(toy, tmp_path):
    list(run_all(["second"], tmp_path))
    assert [(d.name, d.ran) for d in run_all(["second"], tmp_path, force=True)] == [("first", False), ("second", True)]
    assert toy == {"first": 1, "second": 2}
    assert [d.ran for d in run_all(["first", "second"], tmp_path, force=True)] == [True, True]


def test_a_fast_run_leaves_out_what_it_can_compute_a_part_of(toy, tmp_path, monkeypatch):
    known = catalogue.experiments()
    monkeypatch.setitem(known, "first", replace(known["first"], part=lambda context, row: pytest.fail("not read here")))
    assert in_order(["second"]) == ["first", "second"] and in_order(["second"], fast=True) == ["second"]
    assert in_order(["first", "second"], fast=True) == ["first", "second"]
    assert next_to_start(["second"], [], set(), 1) == [] and next_to_start(["second"], [], set(), 1, fast=True)
    monkeypatch.setitem(known, "second", replace(known["second"], compute=known["first"].compute))
    assert [(d.name, d.ran) for d in run_all(["second"], tmp_path, fast=True)] == [("second", True)]
    assert is_current("second", tmp_path, Context(fast=True))
    (tmp_path / "first.csv").write_text("x,y\n0,5\n")  # it reads no table of the other
    assert is_current("second", tmp_path, Context(fast=True))
