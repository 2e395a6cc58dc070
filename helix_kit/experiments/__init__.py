"""The paper's figures and tables, and some beyond it: run, recorded with their provenance, and drawn.

``figures`` has one module for each figure or family of figures. ``machinery`` lists, runs and records them, and writes
them into documents and notebooks. ``helix-kit reproduce`` is the command line of both.

>>> from helix_kit.experiments import experiments, show
>>> experiments()["azure-trace"].paper
'Figure 5'
>>> show("azure-trace")
Azure conversation trace: lengths and arrivals. ...

The names below are imported when they are first used, since figures need pandas and matplotlib.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from helix_kit.experiments.machinery.catalogue import experiments
    from helix_kit.experiments.machinery.files import load
    from helix_kit.experiments.machinery.recording import is_current, redraw, run_experiment
    from helix_kit.experiments.machinery.registry import Context, Experiment, NotAvailableError, experiment
    from helix_kit.experiments.machinery.running import Done, run_all
    from helix_kit.experiments.machinery.showing import Result, compare_sources, show

_HOMES = {
    "Context": "registry",
    "Done": "running",
    "Experiment": "registry",
    "NotAvailableError": "registry",
    "Result": "showing",
    "compare_sources": "showing",
    "experiment": "registry",
    "experiments": "catalogue",
    "is_current": "recording",
    "load": "files",
    "redraw": "recording",
    "run_all": "running",
    "run_experiment": "recording",
    "show": "showing",
}
"""Name -> the module of `helix_kit.experiments.machinery` that defines it."""

__all__ = [
    "Context",
    "Done",
    "Experiment",
    "NotAvailableError",
    "Result",
    "compare_sources",
    "experiment",
    "experiments",
    "is_current",
    "load",
    "redraw",
    "run_all",
    "run_experiment",
    "show",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'helix_kit.experiments' has no attribute {name!r}")
    value = getattr(import_module(f"helix_kit.experiments.machinery.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
