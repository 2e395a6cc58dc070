"""Every notebook agrees with its script, was executed to its end, and shows its pictures without a kernel."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from helix_kit.experiments.machinery.catalogue import experiment_named

jupytext = pytest.importorskip("jupytext", reason="needs the notebooks extra")

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))


def test_there_are_notebooks_and_each_has_a_script():
    assert "00_quickstart" in NAMES
    assert sorted(path.stem for path in (FOLDER / "scripts").glob("*.py")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_notebook_and_script_agree(name):
    notebook = jupytext.read(FOLDER / f"{name}.ipynb")
    script = jupytext.read(FOLDER / "scripts" / f"{name}.py")
    assert [(c.cell_type, c.source) for c in notebook.cells] == [(c.cell_type, c.source) for c in script.cells]


@pytest.mark.parametrize("name", NAMES)
def test_committed_executed_with_pictures_and_without_widget_state(name):
    notebook = jupytext.read(FOLDER / f"{name}.ipynb")
    code = [c for c in notebook.cells if c.cell_type == "code"]
    assert [c.execution_count for c in code] == list(range(1, len(code) + 1)), "run top to bottom, once"
    outputs = [o for c in code for o in c.outputs]
    assert not [o for o in outputs if o.output_type == "error"]
    assert any("image/png" in o.get("data", {}) for o in outputs)
    assert "widgets" not in notebook.metadata
    words = "".join(str(o.get("text", "")) + str(o.get("data", {}).get("text/plain", "")) for o in outputs)
    assert not [folder for folder in ("/tmp/", "/home/", "/root/", "/Users/") if folder in words], (
        "a folder of a machine"
    )


@pytest.mark.parametrize("name", NAMES)
def test_says_what_it_is_for_how_long_it_takes_and_ends_with_exercises(name):
    notebook = jupytext.read(FOLDER / f"{name}.ipynb")
    assert "**Purpose.**" in notebook.cells[0].source and "**Takes**" in notebook.cells[0].source
    assert "## Exercises" in notebook.cells[-1].source


@pytest.mark.parametrize("name", [name for name in NAMES if "07" <= name < "13"])
def test_the_minutes_of_computing_figures_again_are_those_recorded(name):
    """A reader who sets RUN = True waits about as long as the notebook says."""
    notebook = jupytext.read(FOLDER / f"{name}.ipynb")
    shown = set(re.findall(r'show\("([\w-]+)", run=RUN', "".join(c.source for c in notebook.cells)))
    needed = shown | {other for figure in shown for other in experiment_named(figure).needs}
    files = [FOLDER.parent / "figures" / f"{figure}.json" for figure in needed]
    recorded = sum(json.loads(path.read_text(encoding="utf-8"))["seconds"] for path in files) / 60
    promised = float(
        re.search(r"(\d+) minutes? where none is up to date", notebook.cells[0].source.replace("\n", " "))[1]
    )
    assert recorded / 2 < promised < recorded * 2


@pytest.mark.parametrize("name", [name for name in NAMES if "07" <= name < "12"])
def test_galleries_compute_something_that_a_reader_can_change(name):
    notebook = jupytext.read(FOLDER / f"{name}.ipynb")
    own = [c.source for c in notebook.cells if c.cell_type == "code" and re.search(r"^[A-Z, ]+ = ", c.source, re.M)]
    computed = [source for source in own if "hk.simulate(" in source or "hk.plan(" in source]
    assert computed and all(re.search(r"\b(METHOD|METHODS|POLICIES)\b", source) for source in computed[:1])
    assert any("SEED" in source for source in computed), "a seed of one's own"
    assert any(".run()" in source for source in own), "a bar of the committed picture, computed again"


def test_all_notebooks_together_stay_small():
    assert sum(path.stat().st_size for path in FOLDER.glob("*.ipynb")) < 10e6
