"""Results in a notebook: the picture of an experiment, and its table.

>>> from helix_kit.experiments import show
>>> result = show("azure-trace")
>>> result.table["series"].unique().tolist()
['input', 'output', 'arrivals']
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from helix_kit.experiments.figures.common.rows import OURS, OWN_PLAN, PROTOTYPE, SIMULATION
from helix_kit.experiments.machinery.catalogue import experiment_named
from helix_kit.experiments.machinery.files import CHECKOUT, is_complete, load
from helix_kit.experiments.machinery.running import run_all

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Result:
    """A finished experiment, which shows its picture in a notebook.

    Examples
    --------
    >>> from helix_kit.experiments import show
    >>> isinstance(show("azure-trace"), Result)
    True
    """

    name: str
    """The experiment."""
    title: str
    """Its title."""
    text: str
    """The caption of its picture."""
    table: pd.DataFrame
    """Its table; ``table.attrs`` holds what was measured."""
    png: bytes
    """Its picture."""

    def _repr_png_(self) -> bytes:
        return self.png

    def __repr__(self) -> str:
        return f"{self.title}. {self.text}"


def show(name: str, *, run: bool = False, fast: bool = False, folder: Path | None = None) -> Result:
    """The result of an experiment, for a notebook.

    Parameters
    ----------
    name
        The experiment.
    run
        Run it, and the experiments that it needs, unless they are up to date. Without this the result in `folder` is
        shown as it is, and the experiment runs only if there is none.
    fast
        Shorten the runs.
    folder
        The folder with the results; by default ``figures/`` of this checkout.

    Returns
    -------
    Result
        Picture, table and caption.

    Raises
    ------
    InputError
        For an unknown name.

    Examples
    --------
    >>> show("gpu-catalogue").title
    'The catalogue of GPUs'
    """
    folder = folder or CHECKOUT / "figures"
    entry = experiment_named(name)
    if run or not is_complete(name, folder):
        for _ in run_all([name], folder, fast=fast):
            pass
    return Result(name, entry.title, entry.text, load(name, folder), (folder / f"{name}.png").read_bytes())


def compare_sources(result: Result, metric: str = "decode_tokens_per_s") -> pd.DataFrame:
    """The table of an evaluation with one column for each source of values.

    Parameters
    ----------
    result
        An evaluation: ``single-cluster``, ``geo-distributed``, ``high-heterogeneity`` or one of the deep dives.
    metric
        The metric to compare.

    Returns
    -------
    pandas.DataFrame
        One row for each model, mode, setup and method. The columns are the sources that there are: published
        simulation, published prototype, our simulator, and our simulator with our plan.

    Examples
    --------
    >>> from helix_kit.experiments import show
    >>> table = compare_sources(show("single-cluster"))
    >>> table.loc["llama2-70b", "offline", "single", "helix"].tolist()
    [252.1, 223.4, 252.08]
    """
    table = result.table[result.table["metric"] == metric]
    wide = table.pivot_table(
        index=["model", "mode", "setup", "method"], columns="source", values="value", sort=False, aggfunc="first"
    )
    order = [c for c in (SIMULATION, PROTOTYPE, OURS, OWN_PLAN) if c in wide.columns]
    return wide[order].round(2)
