"""A plan and a workload in, a report out: event-driven simulation, compiled on first use.

>>> from helix_kit import Plan, Workload, simulate              # doctest: +SKIP
>>> workload = Workload.azure_conversation(rate_per_s=1.0, duration_s=60)    # doctest: +SKIP
>>> run = simulate(Plan.load("plan.json"), workload)            # doctest: +SKIP
>>> run.summary()["decode_tokens_per_s"]                        # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from helix_kit.simulator.api import simulate
    from helix_kit.simulator.faults import LinkDegrades, NodeDies, NodeSlows, PlanSwap
    from helix_kit.simulator.layerwise.driver import Feed
    from helix_kit.simulator.ranged.driver import Options
    from helix_kit.simulator.scoring import Score, score

__all__ = ["Feed", "LinkDegrades", "NodeDies", "NodeSlows", "Options", "PlanSwap", "Score", "score", "simulate"]

_HOMES = {
    "Feed": "helix_kit.simulator.layerwise.driver",
    "LinkDegrades": "helix_kit.simulator.faults",
    "NodeDies": "helix_kit.simulator.faults",
    "NodeSlows": "helix_kit.simulator.faults",
    "Options": "helix_kit.simulator.ranged.driver",
    "PlanSwap": "helix_kit.simulator.faults",
    "Score": "helix_kit.simulator.scoring",
    "score": "helix_kit.simulator.scoring",
    "simulate": "helix_kit.simulator.api",
}


def __getattr__(name: str) -> Any:
    # numba is imported with the first simulation, not with the package.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
