"""The demo's summary, from the committed quickstart; its runner on a small notebook."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("nbformat", reason="needs the notebooks extra")

import nbformat

from helix_kit.experiments.machinery import demo
from helix_kit.experiments.machinery.notebooks import WIDGET_MIME, execute


def test_summary_of_the_committed_quickstart(root):
    facts = demo.facts_of(nbformat.read(root / demo.NOTEBOOK, as_version=4))
    assert facts["planned"]["flow_tokens_per_s"] >= 2045 and facts["planned"]["gap"] <= 1e-3
    assert facts["answers"] == 8
    for key, measured in facts["measured"].items():
        assert 0.3 < measured / facts["simulated"][key] < 3, f"{key}: simulated and measured are not alike"
    text = demo.words(facts)
    assert "2,046 tokens/s" in text and "8 prompts answered" in text and "measured" in text


def test_a_notebook_that_stopped_early_is_told_apart():
    with pytest.raises(LookupError, match="executed to its end"):
        demo.facts_of(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")]))


def write(path: Path, *cells: str) -> Path:
    made = [nbformat.v4.new_markdown_cell(c) if c.startswith("#") else nbformat.v4.new_code_cell(c) for c in cells]
    nbformat.write(nbformat.v4.new_notebook(cells=made), path)
    return path


def test_execution_keeps_pictures_instead_of_widgets_and_reports_progress(tmp_path):
    pytest.importorskip("anywidget")
    path = write(
        tmp_path / "one.ipynb",
        "# First",
        "import helix_kit as hk\nproblem = hk.Problem.of(hk.Cluster.preset('laptop'), hk.Model.preset('SmolLM2-135M'))",
        "## Second",
        "hk.Plan.from_placement(problem, {'CPU-fast-0': (0, 30)}, method='hand').show()",
    )
    heard = []
    execute(path, progress=lambda *now: heard.append(now))
    assert heard == [(0, 2, "First"), (1, 2, "Second")]
    saved = nbformat.read(path, as_version=4)
    data = saved.cells[-1].outputs[0].data
    assert "image/png" in data and WIDGET_MIME not in data and "widgets" not in saved.metadata


def test_a_failing_cell_leaves_the_file_as_it_was(tmp_path, monkeypatch, capsys):
    (tmp_path / "notebooks").mkdir()
    path = write(tmp_path / demo.NOTEBOOK, "# First", "1 / 0")
    before = path.read_bytes()
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.setattr(demo, "__file__", str(tmp_path / "a" / "b" / "demo.py"))
    assert demo.main() == 1
    assert "ZeroDivisionError" in capsys.readouterr().err and path.read_bytes() == before
    monkeypatch.setattr(demo, "__file__", str(tmp_path / "a" / "b" / "c" / "demo.py"))
    assert demo.main() == 1 and "checkout" in capsys.readouterr().err
