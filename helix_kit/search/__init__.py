"""Search for plans by what they serve in the simulator, in place of their flow (objectives ``served``, ``goodput``).

A plan with the most flow is often not the one that serves most: a deep pipeline pays in round trips, in KV cache held
for longer, and in waiting behind prefills, and the maximum flow sees none of these. The search therefore

1. proposes placements of many shapes (`pool`, `side_by_side`, `stage_program`),
2. ranks them with a cheap estimate (`predictor`),
3. simulates the best of them (`evaluate`, `scorer`), and
4. improves on the best by local search (`moves`), where the simulator decides (`phases`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from helix_kit.search.options import ServedOptions

if TYPE_CHECKING:
    from helix_kit.search.served import plan_served

__all__ = ["ServedOptions", "plan_served"]


def __getattr__(name: str) -> Any:
    # The simulator and Pyomo take seconds to load: only a search loads them, not the program's --help.
    if name == "plan_served":
        from helix_kit.search.served import plan_served

        return plan_served
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
