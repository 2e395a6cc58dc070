"""Search for plans by what they serve: predictor, candidates, local search with the simulator in the loop."""

from __future__ import annotations

from helix_kit.search.served import plan_served

__all__ = ["plan_served"]
