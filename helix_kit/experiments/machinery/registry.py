"""The registry of experiments: for each a function that computes its table and a function that draws it.

An experiment is a function that returns a table. The decorator registers it with the function that draws the table::

    @experiment("azure-trace", title="Azure conversation trace", paper="Figure 5", draw=draw_trace)
    def azure_trace(context: Context) -> pandas.DataFrame: ...

Experiments register themselves when their modules are imported. `helix_kit.experiments.machinery.catalogue` imports
all of them and gives them in the order of the paper; this module imports none, so that every figure can import it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from helix_kit.errors import HelixKitError
from helix_kit.experiments.machinery.files import FIGURES

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

Say = Callable[[str], None]
"""Called with a message about the progress."""


def say_nothing(message: str) -> None:
    """Drop a message about the progress."""


class NotAvailableError(HelixKitError):
    """An experiment cannot run on this machine because something it needs is missing. Other experiments still run."""


@dataclass(frozen=True)
class Context:
    """How an experiment is run, and where it puts measurements.

    Examples
    --------
    >>> context = Context(fast=True, seed=3)
    >>> context.measured["seconds"] = 1.5
    >>> context.folder.as_posix(), context.measured
    ('figures', {'seconds': 1.5})
    """

    fast: bool = False
    """Whether the run is shortened: fewer simulated minutes, shorter solves."""
    seed: int = 0
    """Seed of everything that is drawn at random."""
    say: Say = field(default_factory=lambda: say_nothing)
    """Called with messages about the progress."""
    folder: Path = FIGURES
    """The folder with the results of the other experiments."""
    measured: dict[str, Any] = field(default_factory=dict)
    """Values that differ from run to run (seconds, memory). They go into the provenance, never into the CSV."""


@dataclass(frozen=True)
class Experiment:
    """One figure or table of the paper, or one that goes beyond it.

    Examples
    --------
    >>> entry = Experiment("sizes", "Sizes", "Table 1", compute=lambda context: ..., draw=lambda table: ...)
    >>> entry.timed
    False
    """

    name: str
    """The name on the command line and of the files."""
    title: str
    """Its heading in the document."""
    paper: str
    """Where it stands in the paper."""
    compute: Callable[[Context], pd.DataFrame]
    """Computes the table."""
    draw: Callable[[pd.DataFrame], Figure]
    """Draws the table."""
    needs: tuple[str, ...] = ()
    """Experiments whose CSV it reads. A fast run does without those that have a `part`."""
    part: Callable[..., pd.DataFrame] | None = None
    """Computes some rows of the table alone. In a fast run, another experiment computes only the rows that it reads."""
    data: tuple[str, ...] = ("",)
    """Files and folders of the data folder that it depends on; "" is the whole folder."""
    minutes: float = 0.1
    """Expected minutes on two cores, for the estimate of the time left before the first run."""
    measures: tuple[str, ...] = ()
    """Columns of ``NAME-measured.csv``, for an experiment whose picture shows what this machine measured. That table,
    the PNG and the PDF differ from run to run; the CSV does not. Such an experiment runs alone, so that no other work
    changes its times."""
    text: str = ""
    """The caption in the document."""
    can_run: Callable[[], bool] | None = None
    """Says whether the measurements that it shows are there; while they are missing, it is none of all experiments."""

    @property
    def timed(self) -> bool:
        """Whether its picture shows what this machine measured."""
        return bool(self.measures)


_registered: dict[str, Experiment] = {}


class Details(TypedDict, total=False):
    """The fields of `Experiment` that have a default."""

    needs: tuple[str, ...]
    part: Callable[..., pd.DataFrame] | None
    data: tuple[str, ...]
    minutes: float
    measures: tuple[str, ...]
    text: str
    can_run: Callable[[], bool]


def experiment(
    name: str, *, title: str, paper: str, draw: Callable[[pd.DataFrame], Figure], **details: Unpack[Details]
) -> Callable[[Callable[[Context], pd.DataFrame]], Callable[[Context], pd.DataFrame]]:
    """Register the decorated function as the computation of an experiment.

    Parameters
    ----------
    name, title, paper, draw
        The fields of `Experiment` that every experiment has.
    details
        The fields that have a default.

    Returns
    -------
    Callable
        A decorator, which returns the function unchanged.

    Examples
    --------
    >>> @experiment("squares", title="Squares", paper="none", draw=draw)      # doctest: +SKIP
    ... def squares(context):
    ...     return pandas.DataFrame({"x": [1, 2], "y": [1, 4]})
    """

    def register(compute: Callable[[Context], pd.DataFrame]) -> Callable[[Context], pd.DataFrame]:
        assert name not in _registered, f"two experiments are called {name}"
        _registered[name] = Experiment(name, title, paper, compute, draw, **details)
        return compute

    return register


def registered() -> dict[str, Experiment]:
    """The experiments that have been registered so far, by name, in the order of registration."""
    return dict(_registered)
