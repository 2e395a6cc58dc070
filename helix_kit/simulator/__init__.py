"""A plan and a workload in, a report out: event-driven simulation, compiled on first use.

>>> from helix_kit import Plan, Workload, simulate              # doctest: +SKIP
>>> workload = Workload.azure_conversation(rate_per_s=1.0, duration_s=60)    # doctest: +SKIP
>>> run = simulate(Plan.load("plan.json"), workload)            # doctest: +SKIP
>>> run.summary()["decode_tokens_per_s"]                        # doctest: +SKIP
"""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from helix_kit.simulator.api import simulate, whole_run
    from helix_kit.simulator.engine import Engine, make_engine
    from helix_kit.simulator.faults import LinkDegrades, NodeDies, NodeSlows, PlanSwap
    from helix_kit.simulator.options import BatchingOptions, Feed, SimulationOptions
    from helix_kit.simulator.scoring import Score, score
    from helix_kit.simulator.steady import Window, steady_score, steady_use

__all__ = [
    "BatchingOptions",
    "Engine",
    "Feed",
    "LinkDegrades",
    "NodeDies",
    "NodeSlows",
    "PlanSwap",
    "Score",
    "SimulationOptions",
    "Window",
    "make_engine",
    "score",
    "simulate",
    "steady_score",
    "steady_use",
    "whole_run",
]

_HOMES = {
    "BatchingOptions": "options",
    "Engine": "engine",
    "Feed": "options",
    "LinkDegrades": "faults",
    "NodeDies": "faults",
    "NodeSlows": "faults",
    "PlanSwap": "faults",
    "Score": "scoring",
    "SimulationOptions": "options",
    "make_engine": "engine",
    "Window": "steady",
    "score": "scoring",
    "simulate": "api",
    "steady_score": "steady",
    "steady_use": "steady",
    "whole_run": "api",
}
"""Name -> module of this folder."""


def __getattr__(name: str) -> Any:
    # numba is imported with the first simulation, not with the package.
    if name == "Options":
        warnings.warn("Options is now called BatchingOptions", DeprecationWarning, stacklevel=2)
        name = "BatchingOptions"
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
