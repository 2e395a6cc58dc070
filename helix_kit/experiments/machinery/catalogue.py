"""Importing this module registers every experiment; `ORDER` is their order, that of the paper."""

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

_MODULES = (
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
ORDER = [module.__name__.rpartition(".")[2] for module in _MODULES]
"""Modules in the order in which their experiments are listed."""

__all__ = ["ORDER"]
