"""What runs again and what does not, and that results are the same bytes."""

import json
from dataclasses import replace

import pytest

from helix_kit.errors import InputError
from helix_kit.experiments.machinery import catalogue, recording
from helix_kit.experiments.machinery.files import load
from helix_kit.experiments.machinery.recording import is_current, redraw, run_experiment
from helix_kit.experiments.machinery.registry import Context


def test_finished_is_not_run_again_and_other_parameters_are(toy, tmp_path):
    assert run_experiment("first", tmp_path, Context())
    assert not run_experiment("first", tmp_path, Context())
    assert is_current("first", tmp_path, Context()) and not is_current("first", tmp_path, Context(seed=1))
    assert run_experiment("first", tmp_path, Context(seed=1))
    assert toy["first"] == 2


def test_a_missing_picture_is_made_again(toy, tmp_path):
    run_experiment("first", tmp_path, Context())
    (tmp_path / "first.pdf").unlink()
    assert run_experiment("first", tmp_path, Context())
    assert (tmp_path / "first.pdf").is_file()


def test_a_new_drawing_draws_again_without_computing(toy, tmp_path):
    run_experiment("first", tmp_path, Context())
    trail = json.loads((tmp_path / "first.json").read_text())
    (tmp_path / "first.json").write_text(json.dumps({**trail, "drawing": "of another day"}))
    assert run_experiment("first", tmp_path, Context())
    assert toy["first"] == 1
    assert json.loads((tmp_path / "first.json").read_text()) == trail


def test_an_interrupted_run_is_done_again(toy, tmp_path):
    run_experiment("first", tmp_path, Context())
    (tmp_path / "first.json").write_text('{"inputs": ')
    assert run_experiment("first", tmp_path, Context())


def test_same_seed_same_bytes_and_what_was_measured_stays_out_of_the_table(toy, tmp_path):
    for folder in ("a", "b"):
        run_experiment("first", tmp_path / folder, Context(seed=3))
    for end in ("csv", "pdf", "png"):
        assert (tmp_path / "a" / f"first.{end}").read_bytes() == (tmp_path / "b" / f"first.{end}").read_bytes()
    assert load("first", tmp_path / "a").attrs == {"seconds": 1}
    assert load("first", tmp_path / "b").attrs == {"seconds": 2}


def test_an_end_in_the_middle_leaves_the_last_result_whole(toy, tmp_path, monkeypatch):
    run_experiment("first", tmp_path, Context())
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def interrupted(table):
        raise KeyboardInterrupt

    entry = catalogue.experiments()["first"]
    monkeypatch.setitem(catalogue.experiments(), "first", replace(entry, draw=interrupted))
    monkeypatch.setattr(recording, "drawing_digest", lambda name: "another")
    with pytest.raises(KeyboardInterrupt):
        run_experiment("first", tmp_path, Context(seed=1))
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    monkeypatch.setitem(catalogue.experiments(), "first", entry)
    assert run_experiment("first", tmp_path, Context(seed=1))


def test_redrawing_computes_nothing_and_leaves_inputs_as_they_were(toy, tmp_path):
    run_experiment("first", tmp_path, Context())
    before = (tmp_path / "first.png").read_bytes()
    (tmp_path / "first.csv").write_text("x,y\n0,5\n1,0\n")
    inputs = json.loads((tmp_path / "first.json").read_text())["inputs"]
    redraw("first", tmp_path)
    assert toy["first"] == 1 and (tmp_path / "first.png").read_bytes() != before
    assert json.loads((tmp_path / "first.json").read_text())["inputs"] == inputs
    with pytest.raises(InputError, match="helix-kit reproduce second"):
        redraw("second", tmp_path)


def test_what_was_measured_is_a_table_too(toy, tmp_path, monkeypatch):
    entry = catalogue.experiments()["first"]
    monkeypatch.setitem(catalogue.experiments(), "first", replace(entry, measures=("what", "value")))
    run_experiment("first", tmp_path, Context())
    assert (tmp_path / "first-measured.csv").read_text() == "what,value\nseconds,1\n"
    nested = {"a": {"x": [[0.5, None], [1, 2]], "y": [[3, 4]]}, "b": 7}
    assert list(recording.measured_rows(nested)) == [
        ("a", "x", 0.5, None),
        ("a", "x", 1, 2),
        ("a", "y", 3, 4),
        ("b", 7),
    ]
