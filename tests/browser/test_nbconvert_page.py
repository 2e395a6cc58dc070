"""A page that nbconvert made of an executed notebook, opened without any network: the flow graph is there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nbconvert", reason="needs the notebooks extra")

import nbformat

SOURCE = """
import helix_kit as hk
problem = hk.Problem.of(hk.Cluster.preset("laptop"), hk.Model.preset("SmolLM2-135M"))
plan = hk.Plan.from_placement(problem, {"CPU-fast-0": (0, 15), "CPU-medium-0": (15, 30)}, method="hand")
plan.show()"""


def test_the_flow_graph_is_in_the_page(tmp_path: Path, page: Any):
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(SOURCE.strip())], metadata=kernel)
    nbformat.write(notebook, tmp_path / "page.ipynb")
    line = [sys.executable, "-m", "nbconvert", "--to", "html", "--execute", "page.ipynb"]
    subprocess.run(line, cwd=tmp_path, check=True, capture_output=True, timeout=120)
    page.context.set_offline(True)
    page.goto((tmp_path / "page.html").as_uri(), wait_until="domcontentloaded")
    picture = page.locator(".jp-OutputArea-output img")
    assert picture.count() == 1
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 1000
