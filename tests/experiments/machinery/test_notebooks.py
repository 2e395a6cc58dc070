"""Execution of a notebook in place: what is saved, and what is reported meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("nbformat", reason="needs the notebooks extra")

import nbformat

from helix_kit.experiments.machinery.notebooks import WIDGET_MIME, execute


def write(path: Path, *cells: str) -> Path:
    notebook_cells = [
        nbformat.v4.new_markdown_cell(c) if c.startswith("#") else nbformat.v4.new_code_cell(c) for c in cells
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=notebook_cells), path)
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
