"""Importing this module registers every experiment; `ORDER` is their order, that of the paper."""

from helix_kit.experiments import evaluation, planning, trace, worked

ORDER = [module.__name__.rpartition(".")[2] for module in (worked, trace, evaluation, planning)]
"""Modules in the order in which their experiments are listed."""

__all__ = ["ORDER"]
