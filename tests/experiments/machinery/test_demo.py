"""The demo's summary of the committed quickstart, and the demo on a notebook that fails."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("nbformat", reason="needs the notebooks extra")

import nbformat

from helix_kit.experiments.machinery import demo


def test_summary_of_the_committed_quickstart(root):
    facts = demo.facts_of(nbformat.read(root / demo.NOTEBOOK, as_version=4))
    assert facts["planned"]["flow_tokens_per_s"] >= 2045 and facts["planned"]["gap"] <= 1e-3
    assert facts["answers"] == 8
    for key, measured in facts["measured"].items():
        assert 0.3 < measured / facts["simulated"][key] < 3, f"{key}: simulated and measured are not alike"
    text = demo.summary_text(facts)
    assert "2,046 tokens/s" in text and "8 prompts answered" in text and "measured" in text


def test_a_notebook_that_stopped_early_is_told_apart():
    with pytest.raises(LookupError, match="executed to its end"):
        demo.facts_of(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")]))


def test_a_failing_cell_leaves_the_file_unchanged(tmp_path, monkeypatch, capsys):
    (tmp_path / "notebooks").mkdir()
    path = tmp_path / demo.NOTEBOOK
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")]), path)
    before = path.read_bytes()
    monkeypatch.setattr(demo, "CHECKOUT", tmp_path)
    assert demo.main() == 1
    assert "ZeroDivisionError" in capsys.readouterr().err and path.read_bytes() == before


def test_outside_a_checkout_the_demo_runs_a_copy_in_the_current_folder(tmp_path, monkeypatch, root):
    monkeypatch.setattr(demo, "CHECKOUT", tmp_path / "no-checkout")
    monkeypatch.chdir(tmp_path)
    copy = demo.runnable_notebook()
    assert copy == tmp_path / "00_quickstart.ipynb"
    assert copy.read_bytes() == (root / demo.NOTEBOOK).read_bytes()
    copy.write_text("edited")
    assert demo.runnable_notebook().read_text() == "edited"


def test_the_demo_leaves_the_checkouts_notebook_as_it_is(tmp_path, monkeypatch, capsys):
    """Executing it in place would leave a change that git reports."""
    (tmp_path / "notebooks").mkdir()
    path = tmp_path / demo.NOTEBOOK
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("40 + 2")]), path)
    before = path.read_bytes()
    monkeypatch.setattr(demo, "CHECKOUT", tmp_path)
    monkeypatch.setattr(demo, "facts_of", lambda notebook: notebook.cells[0].outputs[0].data["text/plain"])
    monkeypatch.setattr(demo, "summary_text", lambda facts: f"the answer is {facts}")
    assert demo.main() == 0
    printed = capsys.readouterr().out
    assert path.read_bytes() == before
    assert "the answer is 42" in printed and str(tmp_path / demo.EXECUTED) in printed
    assert nbformat.read(tmp_path / demo.EXECUTED, as_version=4).cells[0].outputs
    assert "/out/" in (Path(__file__).parents[3] / ".gitignore").read_text().split()
