"""The contract of placement methods: a `Task` goes in, a `Found` comes out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from helix_kit.flow import Edge, Flow
from helix_kit.placement.groups import Group
from helix_kit.placement.problem import Problem
from helix_kit.placement.watch import Watch


@dataclass
class Found:
    """What a method returns: a placement, and what it knows about it."""

    placement: dict[str, tuple[int, int]]
    links: set[Edge] | None = None
    """Links that requests may take; None: all that fit."""
    bounds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    solver: str | None = None


@dataclass
class Task:
    """What a method is given."""

    problem: Problem
    watch: Watch
    solver: str
    seed: int
    partial_inference: bool
    groups: list[Group]
    options: dict[str, Any] = field(default_factory=dict)
    flow_split: Literal["balanced", "any"] = "balanced"

    def flow(self, found: Found, split: Literal["balanced", "any"] = "any") -> Flow:
        """An exact maximum flow of what a method found."""
        return self.problem.max_flow(
            found.placement, partial_inference=self.partial_inference, links=found.links, split=split
        )
