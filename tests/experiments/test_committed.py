"""The committed results are complete: files, provenance, measurements, and a test of each table."""

import json
from pathlib import Path

import pandas as pd
from committed import DEEP_DIVES, EVALUATIONS, FIGURES

from helix_kit.experiments.machinery.catalogue import experiments
from helix_kit.experiments.machinery.files import load


def test_every_experiment_is_committed_with_pictures_and_provenance():
    for name, entry in experiments().items():
        for end in ("csv", "png", "pdf", "json"):
            assert (FIGURES / f"{name}.{end}").is_file(), f"{name}.{end}: run `make figures`"
        trail = json.loads((FIGURES / f"{name}.json").read_text())
        assert trail["title"] == entry.title and trail["inputs"]["fast"] is False and trail["inputs"]["seed"] == 0
        assert (FIGURES / f"{name}.pdf").stat().st_size < 500_000


MEASURED = ("convergence", "runtime-and-simulation", "scaling", "solver-quality")
"""The only pictures that differ from run to run: they show what was measured on the machine that drew them."""


def test_some_pictures_show_measurements_and_each_has_them_as_a_table():
    assert {name for name, entry in experiments().items() if entry.timed} == set(MEASURED)
    assert {p.name for p in FIGURES.glob("*-measured.csv")} == {f"{name}-measured.csv" for name in MEASURED}
    for name in MEASURED:
        table = pd.read_csv(FIGURES / f"{name}-measured.csv")
        assert tuple(table.columns) == experiments()[name].measures
        assert set(table.iloc[:, 0].astype(str)) == set(load(name, FIGURES).attrs)
        # Seconds stay out of what is the same everywhere, but for those that were published.
        assert not {"seconds", "measured"} & set(load(name, FIGURES).columns) or name == "convergence"
    own = load("convergence", FIGURES).query("solver != 'Gurobi (published)'")
    assert len(own) and own["seconds"].isna().all()


def test_every_experiment_has_a_test_of_its_table():
    sources = [path.read_text(encoding="utf-8") for path in (Path(__file__).parent / "figures").glob("test_*.py")]
    text = "\n".join(sources)
    names = {*EVALUATIONS, *DEEP_DIVES}
    assert [
        n for n in experiments() if n not in names and f'load("{n}"' not in text and f'NAME = "{n}"' not in text
    ] == []
