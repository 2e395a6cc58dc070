"""Results in a notebook: the picture of an experiment, and its table.

>>> result = show("azure-trace")             # doctest: +SKIP
>>> result.table.head()                      # doctest: +SKIP
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from helix_kit.experiments.figures.common.rows import OURS, OWN_PLAN, PROTOTYPE, SIMULATION
from helix_kit.experiments.machinery.registry import PARTS, get, load
from helix_kit.experiments.machinery.running import run_all

if TYPE_CHECKING:
    import pandas as pd

FIGURES = Path(__file__).resolve().parents[2] / "figures"


@dataclass(frozen=True)
class Result:
    """A finished experiment; in a notebook it shows its picture."""

    name: str
    title: str
    text: str
    table: pd.DataFrame
    png: bytes

    def _repr_png_(self) -> bytes:
        return self.png

    def __repr__(self) -> str:
        return f"{self.title}. {self.text}"


def show(name: str, *, run: bool = False, fast: bool = False, folder: Path | None = None) -> Result:
    """The result of the experiment `name`.

    With `run` it (and what it needs) is run unless it is up to date; without, what lies in `folder` (by default
    ``figures/`` of this checkout) is shown, and run only where there is none.
    """
    folder = folder or FIGURES
    entry = get(name)
    if run or not all((folder / f"{name}.{part}").is_file() for part in PARTS):
        for _ in run_all([name], folder, fast=fast):
            pass
    return Result(name, entry.title, entry.text, load(name, folder), (folder / f"{name}.png").read_bytes())


def compare_sources(result: Result, metric: str = "decode_tokens_per_s") -> pd.DataFrame:
    """An evaluation's table with a column a source: published simulation and prototype, ours, ours on our plan."""
    table = result.table[result.table["metric"] == metric]
    wide = table.pivot_table(
        index=["model", "mode", "setup", "method"], columns="source", values="value", sort=False, aggfunc="first"
    )
    order = [c for c in (SIMULATION, PROTOTYPE, OURS, OWN_PLAN) if c in wide.columns]
    return wide[order].round(2)


__all__ = ["Result", "compare_sources", "show"]
