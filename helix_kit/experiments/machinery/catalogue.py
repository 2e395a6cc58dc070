"""All experiments, in the order of the paper. Importing this module imports, and so registers, every one of them."""

from __future__ import annotations

import re

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
    real_workers,
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
    real_workers,
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
    """All experiments, except those whose measurements are missing.

    Returns
    -------
    dict
        Name -> experiment, in the order of the paper.

    Examples
    --------
    >>> list(experiments())[:2]
    ['worked-example', 'flow-network']
    """
    return {name: entry for name, entry in _known().items() if entry.can_run is None or entry.can_run()}


def _known() -> dict[str, Experiment]:
    order = [module.__name__ for module in MODULES]
    entries = sorted(registered().values(), key=lambda entry: order.index(entry.compute.__module__))
    return {entry.name: entry for entry in entries}


def experiment_named(name: str) -> Experiment:
    """The experiment of that name; raises InputError, with the closest name, for an unknown one."""
    known = _known()
    if name not in known:
        raise InputError(_files.unknown("experiment", name, known))
    return known[name]


def needs_of(name: str, fast: bool) -> tuple[str, ...]:
    """The experiments that must have been run before this one."""
    needs = experiment_named(name).needs
    return tuple(other for other in needs if experiment_named(other).part is None) if fast else needs


def experiments_of(word: str) -> list[str]:
    """The experiments that a word on the command line means: one by its name, or all of a place in the paper.

    >>> experiments_of("6.4"), experiments_of("figure 5")
    (['geo-distributed'], ['azure-trace'])
    """
    if word in _known():
        return [word]
    known = experiments()
    number = re.sub(r"^(sections?|sec\.?|§)\s*", "", word.strip(), flags=re.IGNORECASE)
    if not re.fullmatch(r"\d+(\.\d+)*", number):
        found = [name for name, entry in known.items() if entry.paper.casefold() == word.strip().casefold()]
        return found or [experiment_named(word).name]
    # 6 stands for all sections from 6.1 on.
    found = [n for n, e in known.items() if any(f"{s}.".startswith(f"{number}.") for s in _sections(e.paper))]
    if not found:
        sections = {section for entry in known.values() for section in _sections(entry.paper)}
        raise InputError(f"no experiment of section {number}: expected one of {', '.join(sorted(sections))}")
    return found


def _sections(paper: str) -> list[str]:
    """The numbers of the sections in a text such as ``Sections 6.6 and 6.9``.

    A range such as ``Sections 6.3 to 6.7`` is the place of a summary, which belongs to none of its sections alone.
    """
    if "section" not in paper.casefold() or " to " in paper:
        return []
    return re.findall(r"\d+(?:\.\d+)+", paper)
