"""Every notebook runs top to bottom, offline, through nbmake with FAST=1; the committed files stay as they are.

By hand: ``FAST=1 pytest --nbmake notebooks``. `make bench-clock` holds the seconds that they promise.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("nbmake", reason="needs nbmake (the dev extra)")

import nbformat
from nbmake.nb_run import NotebookRun

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
CELL_LIMIT_S = 300


def run(path: Path) -> nbformat.NotebookNode:
    """Execute the notebook as `pytest --nbmake` does; the test fails with the source and trace of a failing cell."""
    result = NotebookRun(path, default_timeout=CELL_LIMIT_S, kernel="python3").execute()
    if result.error is not None:
        trace = COLOURS.sub("", result.error.trace)
        pytest.fail(f"{path.name}, cell {result.error.failing_cell_index}\n{trace}", pytrace=False)
    return result.nb


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAST", "1")


@pytest.mark.parametrize("name", NAMES)
def test_runs(name):
    path = FOLDER / f"{name}.ipynb"
    committed = path.read_bytes()
    executed = run(path)
    code = [cell for cell in executed.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert path.read_bytes() == committed


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("import os\nassert os.environ['FAST'] != '1', 'FAST reached the kernel'", "FAST"),
    ],
)
def test_a_failing_cell_fails_the_test(tmp_path, source, message):
    cells = [nbformat.v4.new_code_cell("x = 1"), nbformat.v4.new_code_cell(source)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "broken.ipynb")
    with pytest.raises(pytest.fail.Exception, match=rf"(?s)broken\.ipynb, cell 1.*{message}"):
        run(tmp_path / "broken.ipynb")
