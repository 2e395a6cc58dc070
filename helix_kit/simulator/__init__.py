"""A plan and a workload in, a report out: event-driven simulation, compiled on first use.

>>> from helix_kit import Plan, Workload, simulate              # doctest: +SKIP
>>> run = simulate(Plan.load("plan.json"), Workload.azure_conversation(rate=1.0, duration=60))    # doctest: +SKIP
>>> run.summary()["decode_tokens_per_s"]                        # doctest: +SKIP
"""

from __future__ import annotations

from typing import Any

__all__ = ["Feed", "score", "simulate"]

_HOMES = {
    "simulate": "helix_kit.simulator.api",
    "score": "helix_kit.simulator.scoring",
    "Feed": "helix_kit.simulator.published",
}


def __getattr__(name: str) -> Any:
    # numba is imported with the first simulation, not with the package.
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
