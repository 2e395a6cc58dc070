"""The default method: search the largest flow F whose pattern program covers the model (one region).

For a target F, columns (stages) come from the linear program with priced-out lanes; the integer program chooses
whole stages; the placement they make is verified by max flow, which is the value and the next lower end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from helix_kit.errors import InfeasibleError
from helix_kit.placement import bounds, colgen
from helix_kit.placement.groups import Group
from helix_kit.placement.stages import Lane, Stage, StagePricing, uniform_stages
from helix_kit.placement.watch import Watch

if TYPE_CHECKING:
    from helix_kit.placement.planner import Task

STEPS = (0.0, 0.0004, 0.002, 0.006, 0.015, 0.03, 0.06, 0.12, 0.25, 0.5, 0.75, 0.9, 0.97)
"""How far below the bound to try, in turn, until a target is reached."""
PRECISION = 2e-4
KEPT_LOSS = 0.15
"""Columns with a reduced cost above -this times their length stay: the integer program needs more than the basis."""
MOST_COLUMNS = 600
Layout = dict[str, tuple[int, int]]


@dataclass
class PatternSearch:
    """Groups, the pool of stages found so far, and the solver's settings."""

    groups: Sequence[Group]
    num_layers: int
    watch: Watch
    solver: str = "highs"
    seed: int = 0
    max_depth: int | None = None
    milp_seconds: float = 4.0
    pool: dict[tuple[Lane, ...], Stage] = field(default_factory=dict)

    def attempt(self, target: float) -> list[Stage] | None:
        """Stages that carry `target` through all layers, or None."""
        supply = [g.size for g in self.groups]
        for stage in uniform_stages(self.groups, target):
            self.pool.setdefault(stage.lanes, stage)
        usable = [s for s in self.pool.values() if s.rate >= target * (1 - 1e-9)]
        pricing = StagePricing(self.groups, target, self.num_layers)

        def price(duals: NDArray[np.float64]) -> list[tuple[float, Sequence[float]]]:
            fresh = list(pricing.cheapest(duals + 1e-9))
            for stage in fresh:
                self.pool.setdefault(stage.lanes, stage)
            return [(s.length, s.uses) for s in fresh]

        # A depth cap is one more row, whose price every hop pays; lanes then get shorter by themselves.
        columns = [(float(s.length), s.uses) for s in usable]
        reach, duals, _ = colgen.solve(supply, columns, price, over=self.watch.over)
        if reach < self.num_layers - 1e-6:
            return None
        from helix_kit.placement.pattern_milp import choose

        kept = self._near_optimal(target, duals)
        limit = min(self.milp_seconds, self.watch.left)
        return choose(
            kept,
            supply,
            self.num_layers,
            solver=self.solver,
            time_limit=limit,
            stop=self.watch.stopped,
            seed=self.seed,
            max_depth=self.max_depth,
        )

    def _near_optimal(self, target: float, duals: NDArray[np.float64]) -> list[Stage]:
        reduced = [
            (s.length - float(np.dot(s.uses, duals)), s) for s in self.pool.values() if s.rate >= target * (1 - 1e-9)
        ]
        kept = [(r, s) for r, s in reduced if r > -KEPT_LOSS * s.length]
        kept.sort(key=lambda pair: (-pair[0] / pair[1].length, pair[1].lanes))
        return [s for _, s in kept[:MOST_COLUMNS]]


def search_flow(
    search: PatternSearch, bound: float, evaluate: Callable[[list[Stage]], float], low: float = 0.0
) -> list[Stage] | None:
    """The stages of the largest flow found; `evaluate` returns the verified max flow of a choice.

    `low` is a flow already reached: nothing below it is tried.
    """
    best: list[Stage] | None = None
    high = bound
    for step in STEPS:
        target = bound * (1 - step)
        if target <= low or search.watch.over():
            break
        found = search.attempt(target)
        if found is not None:
            best, low = found, max(target, evaluate(found))
            break
        high = target
    if best is None:
        return None
    while high - low > PRECISION * high and not search.watch.over():
        target = (low + high) / 2
        found = search.attempt(target)
        if found is None:
            high = target
        else:
            value = evaluate(found)
            if value > low:
                best = found
            low = max(low, target, value)
    return best


def lay_out(stages: Sequence[Stage], groups: Sequence[Group], num_layers: int) -> Layout:
    """Concrete nodes for stages laid one after another from layer 0; what reaches past the last layer is cut off."""
    ordered = sorted(stages, key=lambda s: (-s.length, s.lanes))
    supply = [iter(g.nodes) for g in groups]
    placement: Layout = {}
    start = 0
    for stage in ordered:
        for lane in stage.lanes:
            at = start
            for g, k in lane:
                node = next(supply[g])
                if at < num_layers:
                    placement[node] = (at, min(at + k, num_layers))
                at += k
        start += stage.length
    return placement


def find(task: Task) -> tuple[Layout, dict[str, float]]:
    """The best placement of the pattern program within the task's time, and the bounds found on the way."""
    groups, problem, watch = task.groups, task.problem, task.watch
    layers = problem.num_layers
    first = bounds.b1(groups, layers)
    watch.report(bound=first)
    bound = bounds.b2(groups, layers, low=0.0, high=first, over=watch.over)
    watch.report(bound=bound)
    search = PatternSearch(groups, layers, watch, task.solver, task.seed)

    def evaluate(stages: list[Stage]) -> float:
        flow = problem.max_flow(lay_out(stages, groups, layers), partial_inference=task.partial_inference)
        watch.report(value=flow.tokens_per_s)
        return flow.tokens_per_s

    stages = search_flow(search, bound, evaluate)
    placement = lay_out(stages, groups, layers) if stages else one_chain(groups, layers)
    return placement, {"B1": first, "B2": bound}


def one_chain(groups: Sequence[Group], num_layers: int) -> Layout:
    """All nodes in a row, fastest first, each with as many layers as it holds: a plan whenever there is one."""
    nodes = [(g.throughput[-1], name, g.max_layers) for g in groups for name in g.nodes if g.throughput[-1] > 0]
    if sum(size for _, _, size in nodes) < num_layers:
        raise InfeasibleError(
            "no placement carries any flow: the nodes have no room for a single request's context beside the layers "
            "they would have to hold",
            fix="add a node with more memory",
        )
    placement: Layout = {}
    at = 0
    for _, name, size in sorted(nodes, key=lambda n: (-n[0], n[1])):
        if at < num_layers:
            placement[name] = (at, min(at + size, num_layers))
            at += size
    return placement
