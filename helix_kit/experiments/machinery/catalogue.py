"""All experiments, in the order of the paper. Importing this module imports, and so registers, every one of them."""

from __future__ import annotations

from helix_kit import _files
from helix_kit.errors import InputError
from helix_kit.experiments.figures import (
    agreement,
    beyond,
    closed_loop,
    equal_load,
    evaluation,
    own_plans,
    placements,
    planning,
    results,
    solvers,
    trace,
    worked,
)
from helix_kit.experiments.machinery.registry import Experiment, registered

MODULES = (
    worked,
    placements,
    trace,
    evaluation,
    solvers,
    planning,
    own_plans,
    equal_load,
    closed_loop,
    beyond,
    agreement,
    results,
)
"""The modules of experiments, in the order in which their experiments are listed."""


def experiments() -> dict[str, Experiment]:
    """All experiments.

    Returns
    -------
    dict
        Name -> experiment, in the order of the paper.

    Examples
    --------
    >>> list(experiments())[:2]
    ['worked-example', 'flow-network']
    """
    order = [module.__name__ for module in MODULES]
    entries = sorted(registered().values(), key=lambda entry: order.index(entry.compute.__module__))
    return {entry.name: entry for entry in entries}


def experiment_named(name: str) -> Experiment:
    """The experiment of that name; raises InputError, with the closest name, for an unknown one."""
    known = experiments()
    if name not in known:
        raise InputError(_files.unknown("experiment", name, known))
    return known[name]
