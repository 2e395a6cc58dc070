"""Every notebook runs top to bottom, offline, through nbmake with FAST=1; the committed files stay as they are.

By hand: ``FAST=1 pytest --nbmake notebooks``.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

pytest.importorskip("nbmake", reason="needs nbmake (the dev extra)")

import nbformat
from nbmake.nb_run import NotebookRun

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
CELL_LIMIT_S = 300
TOTAL_LIMIT_S = 600
"""What all notebooks together may take; they take about half of it on two cores."""
seconds: dict[str, float] = {}


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
    committed, started = path.read_bytes(), time.perf_counter()
    executed = run(path)
    seconds[name] = time.perf_counter() - started
    code = [cell for cell in executed.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert path.read_bytes() == committed


PROMISE = re.compile(r"(\d+) s with `FAST=1`")
PATIENCE = 4.0
"""A busy machine may take so many times the promised seconds, and 20 s more."""


@pytest.mark.parametrize("name", NAMES)
def test_promised_seconds_are_kept(name):
    promise = PROMISE.search(nbformat.read(FOLDER / f"{name}.ipynb", as_version=4).cells[0].source)
    if promise is None or name not in seconds:
        pytest.skip("promises no seconds, or was not run")
    promised = float(promise[1])
    assert seconds[name] < PATIENCE * promised + 20, f"{name} took {seconds[name]:.0f} s; it promises {promised:.0f} s"


def test_together_they_stay_within_ten_minutes():
    table = "\n".join(f"{name:28}{spent:6.1f} s" for name, spent in seconds.items())
    print(table)
    assert sum(seconds.values()) < TOTAL_LIMIT_S, table


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
