"""Results in a notebook: the picture of an experiment, and its table.

>>> from helix_kit.experiments import show
>>> result = show("azure-trace")
>>> result.table["series"].unique().tolist()
['input', 'output', 'arrivals']
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from helix_kit.experiments.figures.common.rows import OURS, OWN_PLAN, PROTOTYPE, SIMULATION
from helix_kit.experiments.machinery.catalogue import experiment_named
from helix_kit.experiments.machinery.files import CHECKOUT, is_complete, load
from helix_kit.experiments.machinery.recording import is_current
from helix_kit.experiments.machinery.registry import Context
from helix_kit.experiments.machinery.running import in_order, run_all

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
        The folder with the results. By default that is ``figures/`` of this checkout, whose files stay as they are:
        what has to be run goes to ``out/figures/`` beside it.

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
    entry = experiment_named(name)
    if folder is None:
        folder = CHECKOUT / "figures"
        context = Context(fast=fast, folder=folder)
        if not is_complete(name, folder) or (run and not is_current(name, folder, context)):
            folder = _folder_for_runs(name, context)
            run = True
    if run or not is_complete(name, folder):
        for _ in run_all([name], folder, fast=fast):
            pass
    return Result(name, entry.title, entry.text, load(name, folder), (folder / f"{name}.png").read_bytes())


def _folder_for_runs(name: str, context: Context) -> Path:
    """The folder for results that are not to change the committed ones, with those that need not be run again."""
    target = CHECKOUT / ("out/figures-fast" if context.fast else "out/figures")
    target.mkdir(parents=True, exist_ok=True)
    for other in in_order([name], fast=context.fast):
        if is_current(other, context.folder, context):
            for path in (*context.folder.glob(f"{other}.*"), *context.folder.glob(f"{other}-measured.csv")):
                shutil.copy2(path, target / path.name)
    return target


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
