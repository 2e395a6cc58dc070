"""The default method: search the largest flow F whose pattern program covers the model (one region).

For a target F, columns (stages) come from the linear program with priced-out lanes; the integer program chooses
whole stages; the placement they make is verified by max flow, which is the value and the next lower end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from helix_kit.flow import Placement
from helix_kit.placement.groups import Group
from helix_kit.placement.pattern.stages import Lane, Stage, StagePricing, uniform_stages
from helix_kit.placement.solvers import SolverSettings
from helix_kit.placement.solvers.columns import Column, solve_columns
from helix_kit.placement.solvers.parts import Slot, assign_nodes
from helix_kit.placement.watch import Watch

STEPS = (0.0, 0.0004, 0.002, 0.006, 0.015, 0.03, 0.06, 0.12, 0.25, 0.5, 0.75, 0.9, 0.97)
"""How far below the bound to try, in turn, until a target is reached."""
PRECISION = 2e-4
CLOSE = 0.7
"""Share of the bound from which on halving towards it is better than stepping down from it."""
KEPT_LOSS = 0.15
"""Columns with a reduced cost above -this times their length stay: the integer program needs more than the basis."""
MOST_COLUMNS = 600
CROSSING_WORTH = 4.0
"""Layers that a wide stage at a crossing may cost, far more than one does."""


@dataclass
class PatternSearch:
    """Groups of one region (or of a set of regions), the stages found so far, and the solver's settings."""

    groups: Sequence[Group]
    num_layers: int
    watch: Watch
    solver: str = "highs"
    seed: int = 0
    max_depth: int | None = None
    link_cap: float = math.inf
    """Tokens/s of the slowest link within a region."""
    crossing_cap: float = math.inf
    """Tokens/s of a usual link between regions."""
    milp_seconds: float = 4.0
    pool: dict[tuple[Lane, ...], Stage] = field(default_factory=dict)

    @cached_property
    def regions(self) -> list[list[int]]:
        """Groups of each region."""
        members: dict[str, list[int]] = {}
        for index, group in enumerate(self.groups):
            members.setdefault(group.region, []).append(index)
        return list(members.values())

    def attempt(self, target: float) -> list[list[Stage]] | None:
        """Stages that carry `target` through all layers, for each region in order of the chain; or None."""
        supply = [g.size for g in self.groups]
        pricings = self._pricings(target)
        if not pricings:
            return None
        for stage in uniform_stages(self.groups, target):
            self.pool.setdefault(stage.lanes, stage)
        usable = self._usable(target)

        # A depth cap is one more row: hops are a supply like nodes.
        hops = [] if self.max_depth is None else [self.max_depth]

        def column(stage: Stage) -> Column:
            return Column(float(stage.length), [*stage.uses, *([stage.depth] if hops else [])])

        def price(duals: NDArray[np.float64]) -> list[Column]:
            prices = duals[: len(supply)] + 1e-9
            fresh = [stage for pricing in pricings if not self.watch.is_over() for stage in pricing.cheapest(prices)]
            for stage in fresh:
                self.pool.setdefault(stage.lanes, stage)
            return [column(s) for s in fresh]

        reach, duals, _ = solve_columns(
            [*supply, *hops], [column(s) for s in usable], price, should_stop=self.watch.is_over
        )
        if reach < self.num_layers - 1e-6:
            return None
        kept = self._near_optimal(target, duals)
        limit = min(self.milp_seconds, self.watch.left_s)
        settings = SolverSettings(self.solver, limit, seed=self.seed, stop=self.watch.stopped)
        if len(self.regions) == 1:
            from helix_kit.placement.pattern.program import choose

            chosen = choose(kept, supply, self.num_layers, settings, max_depth=self.max_depth)
            return None if chosen is None else [sorted(chosen, key=lambda s: (-s.length, s.lanes))]
        from helix_kit.placement.pattern.chain_program import choose_chain

        share = min(1.0, self.crossing_cap / target)
        if share < 1:
            lanes = {s.lanes for s in kept}
            kept += [s for s in self._worth_a_crossing(target, share, pricings) if s.lanes not in lanes]
        return choose_chain(self, kept, target, share, settings, max_depth=self.max_depth)

    def _usable(self, target: float) -> list[Stage]:
        narrow = math.sqrt(min(1.0, self.link_cap / target)) * (1 + 1e-9)
        usable = [s for s in self.pool.values() if s.rate >= target * (1 - 1e-9)]
        return usable if narrow >= 1 else [s for s in usable if s.widest_share(self.groups, target) <= narrow]

    def _pricings(self, target: float) -> list[StagePricing]:
        """One a region; where links bind, lanes carry what the product of two shares lets through."""
        inner = math.sqrt(target * self.link_cap)
        found = []
        for members in self.regions:
            caps = {min(inner, target)}
            if len(self.regions) > 1:
                caps |= {
                    min(inner, target, math.sqrt(target * self.crossing_cap)),
                    min(inner, target, self.crossing_cap),
                }
            for cap in sorted(caps):
                pricing = StagePricing(
                    self.groups, target, self.num_layers, members=members, lane_cap=cap, link_cap=self.link_cap
                )
                if pricing.rates:
                    found.append(pricing)
            if self.max_depth is not None:
                # Where hops are dear, stages of single nodes side by side are wanted: one hop each.
                shallow = StagePricing(
                    self.groups, target, self.num_layers, members=members, lane_cap=min(caps), link_cap=0.0
                )
                if shallow.rates:
                    found.append(shallow)
        return found

    def _near_optimal(self, target: float, duals: NDArray[np.float64]) -> list[Stage]:
        hop = 0.0 if self.max_depth is None else float(duals[-1])
        nodes = duals[: len(self.groups)]
        reduced = [(s.length - float(np.dot(s.uses, nodes)) - hop * s.depth, s) for s in self._usable(target)]
        reduced.sort(key=lambda pair: (-pair[0] / pair[1].length, pair[1].lanes))
        kept = [s for r, s in reduced if r > -KEPT_LOSS * s.length][:MOST_COLUMNS]
        if len(self.regions) > 1:
            # Wide stages make the crossings; the best of each length, region and width stay, whatever they cost.
            share = min(1.0, self.crossing_cap / target)
            seen: set[tuple[str, int, bool]] = set()
            lanes = {s.lanes for s in kept}
            for _, s in reduced:
                width = s.widest_share(self.groups, target) / (1 + 1e-9)
                for limit in (math.sqrt(share), share):
                    key = (self.groups[s.region].region, s.length, limit == share)
                    if width <= limit and key not in seen:
                        seen.add(key)
                        if s.lanes not in lanes:
                            lanes.add(s.lanes)
                            kept.append(s)
        return kept

    def _worth_a_crossing(self, target: float, share: float, pricings: Sequence[StagePricing]) -> list[Stage]:
        """Near-optimal stages where crossings are asked for, which the program above leaves out.

        A chain through R regions needs 2 R - 2 wide stages, at most two in each:

            max  sum_p l_p y_p + M sum_r w_r    s.t.  sum_p a_pg y_p <= n_g,   w_r <= sum_{p wide, in r} y_p,
                 w_r <= 2,   sum_r w_r <= 2 R - 2.
        """
        count = len(self.regions)
        region_of = {g: r for r, members in enumerate(self.regions) for g in members}
        supply = [g.size for g in self.groups]
        hops = [] if self.max_depth is None else [self.max_depth]
        width = math.sqrt(share) * (1 + 1e-9)
        # A right-hand side of 0 would let the simplex cycle.
        right = [*supply, *hops, *[1e-6] * count, *[2.0] * count, 2.0 * count - 2]
        met = []
        for r in range(count):
            use = np.zeros(len(right))
            use[[-1, -1 - count + r, -1 - 2 * count + r]] = 1.0
            met.append(Column(CROSSING_WORTH, use.tolist()))

        def column(stage: Stage) -> Column:
            use = np.zeros(len(right))
            use[: len(supply)] = stage.uses
            use[len(supply) : len(supply) + len(hops)] = stage.depth
            if stage.widest_share(self.groups, target) <= width:
                use[-1 - 2 * count + region_of[stage.region]] = -1.0
            return Column(float(stage.length), use.tolist())

        def price(duals: NDArray[np.float64]) -> list[Column]:
            prices = duals[: len(supply)] + 1e-9
            fresh = [stage for pricing in pricings if not self.watch.is_over() for stage in pricing.cheapest(prices)]
            for stage in fresh:
                self.pool.setdefault(stage.lanes, stage)
            return [column(s) for s in fresh]

        columns = [*met, *(column(s) for s in self._usable(target))]
        _, duals, _ = solve_columns(right, columns, price, should_stop=self.watch.is_over)
        reduced = [(value - float(np.dot(use, duals)), s) for s in self._usable(target) for value, use in [column(s)]]
        reduced.sort(key=lambda pair: (-pair[0] / pair[1].length, pair[1].lanes))
        return [s for loss, s in reduced if loss > -KEPT_LOSS * s.length][:MOST_COLUMNS]


Chain = list[list[Stage]]
"""Stages of each region, in the order in which requests pass."""


def search_flow(
    search: PatternSearch,
    bound: float,
    evaluate: Callable[[Chain], float],
    low: float = 0.0,
    precision: float = PRECISION,
) -> Chain | None:
    """The stages of the largest flow found; `evaluate` returns the verified max flow of a choice.

    `low` is a flow already reached: nothing below it is tried. The search ends within `precision` of what fails.
    """
    best: Chain | None = None
    high = bound
    # Where much is reached already and little more can be had, halving takes fewer programs.
    near = precision > PRECISION and low > CLOSE * bound
    for step in () if near else STEPS:
        target = bound * (1 - step)
        if target <= low or search.watch.is_over():
            break
        found = search.attempt(target)
        value = evaluate(found) if found is not None else 0.0
        if found is not None and value > low:
            best, low = found, value
        if value >= target * (1 - 1e-6):
            break
        if found is None:
            high = target
    if best is None and not near:
        return None
    while high - low > precision * high and not search.watch.is_over():
        target = (low + high) / 2
        found = search.attempt(target)
        value = evaluate(found) if found is not None else 0.0
        if found is not None and value > low:
            best, low = found, value
        if value < target * (1 - 1e-6):
            high = target
    return best


def lay_out(chain: Chain, groups: Sequence[Group], num_layers: int) -> Placement:
    """Concrete nodes for stages laid one after another from layer 0; what reaches past the last layer is cut off."""
    slots: list[Slot] = []
    start = 0
    for stage in (stage for region in chain for stage in region):
        slots += stage.slots(start)
        start += stage.length
    placed = assign_nodes(slots, groups)
    return {name: (start, min(end, num_layers)) for name, (start, end) in placed.items() if start < num_layers}
