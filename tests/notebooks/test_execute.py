"""Every notebook runs top to bottom, offline, with FAST=1."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("nbclient", reason="needs the notebooks extra")

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
QUICK = {"01_define_a_cluster", "03_flow"}
"""Run with all tests; the others take up to a minute and a half each."""
NAMES = [
    pytest.param(path.stem, marks=() if path.stem in QUICK else pytest.mark.slow)
    for path in sorted(FOLDER.glob("*.ipynb"))
]


@pytest.mark.parametrize("name", NAMES)
def test_runs(name, monkeypatch):
    monkeypatch.setenv("FAST", "1")
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}})
    client.execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
