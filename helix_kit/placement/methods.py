"""The table of placement methods, by the name that a user types.

To add a method, write a function from `Task` to `Placed` (see `helix_kit.placement.method`) and list it here.
"""

from __future__ import annotations

from helix_kit.placement.baselines import parallax, petals, proportional, separate, swarm
from helix_kit.placement.method import Method, Placed, Task


def _pattern(task: Task) -> Placed:
    # Pyomo takes half a second to load: only a method that solves a program loads it.
    from helix_kit.placement.pattern.method import place

    return place(task)


def _paper(task: Task) -> Placed:
    from helix_kit.placement.paper.method import place

    return place(task)


METHODS: dict[str, Method] = {
    "pattern": Method(_pattern, ("max_stages", "pins")),
    "paper-milp": Method(_paper, ("degree", "initial", "mip_gap", "tighten", "write_lp")),
    "swarm": Method(swarm.place),
    "petals": Method(petals.place),
    "separate": Method(separate.place),
    "separate-plus": Method(separate.place_plus),
    "proportional": Method(proportional.place),
    "parallax": Method(parallax.place),
}

__all__ = ["METHODS"]
