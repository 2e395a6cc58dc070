"""The table of placement methods, by the name that a user types.

To add a method, write a function from `Task` to `Placed` (see `helix_kit.placement.method`) and list it here.
"""

from __future__ import annotations

from helix_kit.placement.baselines import heuristics, others
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
    "swarm": Method(lambda task: Placed(heuristics.swarm(task.problem))),
    "petals": Method(lambda task: Placed(heuristics.petals(task.problem, task.options.seed))),
    "separate": Method(lambda task: Placed(*heuristics.separate(task.problem))),
    "separate-plus": Method(lambda task: Placed(*heuristics.separate(task.problem, plus=True))),
    "proportional": Method(lambda task: Placed(others.proportional(task.problem))),
    "parallax": Method(lambda task: Placed(others.parallax(task.problem))),
}

__all__ = ["METHODS"]
