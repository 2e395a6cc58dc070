"""The search for the largest flow F whose pattern program covers the model, in one region or a chain of regions.

For a target F, column generation finds good stages: the linear relaxation of the pattern program is solved, and its
duals price further stages. An integer program then chooses whole stages. The placement that they make is evaluated by
an exact maximum flow, which is the flow reached and the next lower end of the search over F.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from helix_kit.flow import Placement
from helix_kit.placement.groups import Group
from helix_kit.placement.pattern.chain_program import ChainTask, choose_chain
from helix_kit.placement.pattern.pricing import StagePricing
from helix_kit.placement.pattern.program import choose
from helix_kit.placement.pattern.stages import Lane, PatternStage, uniform_stages
from helix_kit.placement.solvers import SolverSettings
from helix_kit.placement.solvers.columns import Column, LinearSolution, solve_columns
from helix_kit.placement.watch import Watch

STEPS = (0.0, 0.0004, 0.002, 0.006, 0.015, 0.03, 0.06, 0.12, 0.25, 0.5, 0.75, 0.9, 0.97)
"""Shares below the bound at which targets are tried in turn, until one is reached."""
PRECISION = 2e-4
"""Relative distance between a flow reached and a target that failed at which the search ends."""
CLOSE_SHARE = 0.7
"""If a coarse search has reached this share of the bound, it halves the distance to the bound at once."""
MAX_LOSS_PER_LAYER = 0.15
"""A stage is kept for the integer program if its reduced cost is above -MAX_LOSS_PER_LAYER times its length. The stages
of the relaxation's optimum alone (reduced cost 0) seldom make up a whole model."""
MAX_COLUMNS = 600
"""Stages kept for the integer program, at most."""
CROSSING_VALUE = 4.0
"""Value of a wide stage at a crossing, in layers. It is far more than such a stage costs, so none is left out."""
PROGRAM_LIMIT_S = 4.0
"""Seconds for one integer program."""

StageChain = list[list[PatternStage]]
"""Stages of each region, in the order in which requests pass them."""


class Candidate(NamedTuple):
    """A placement and the tokens/s of its maximum flow."""

    tokens_per_s: float
    placement: Placement


@dataclass
class PatternSearch:
    """Chooses stages for targets, and keeps the stages that it has found for further targets."""

    groups: Sequence[Group]
    num_layers: int
    watch: Watch
    solver: str = "highs"
    seed: int = 0
    max_depth: int | None = None
    """The largest number of nodes that a request may pass."""
    link_tokens_per_s: float = math.inf
    """Capacity of the slowest link within a region."""
    crossing_tokens_per_s: float = math.inf
    """Capacity of the links between regions to plan with."""
    stages: dict[tuple[Lane, ...], PatternStage] = field(default_factory=dict)
    """All stages found so far, by their lanes."""

    @cached_property
    def groups_by_region(self) -> list[list[int]]:
        """Indices of the groups of each region."""
        groups: dict[str, list[int]] = {}
        for index, group in enumerate(self.groups):
            groups.setdefault(group.region, []).append(index)
        return list(groups.values())

    @cached_property
    def region_of_group(self) -> list[int]:
        """Index of each group's region."""
        region_of = {g: r for r, groups in enumerate(self.groups_by_region) for g in groups}
        return [region_of[g] for g in range(len(self.groups))]

    @property
    def _supply(self) -> list[int]:
        """Right-hand side of the relaxation: the nodes of each group and, under a cap on depth, the cap.

        A cap on depth is one more row: stages use up depth as they use up nodes.
        """
        return [g.size for g in self.groups] + ([] if self.max_depth is None else [self.max_depth])

    def attempt(self, target: float) -> StageChain | None:
        """Stages that carry `target` tokens/s through all layers; None when none are found."""
        pricings = self._pricings(target)
        if not pricings:
            return None
        for stage in uniform_stages(self.groups, target):
            self.stages.setdefault(stage.lanes, stage)
        relaxation = self._solve_relaxation(target, pricings)
        if relaxation.objective < self.num_layers - 1e-6:
            return None
        kept = self._near_optimal(target, relaxation.duals)
        limit_s, stop = self.watch.solver_limit(PROGRAM_LIMIT_S)
        settings = SolverSettings(self.solver, limit_s, seed=self.seed, stop=stop)
        if len(self.groups_by_region) == 1:
            supply = [g.size for g in self.groups]
            chosen = choose(kept, supply, self.num_layers, settings, max_depth=self.max_depth)
            return None if chosen is None else [sorted(chosen, key=lambda s: (-s.length, s.lanes))]
        share = self._crossing_share(target)
        if share < 1:
            lanes = {s.lanes for s in kept}
            kept += [s for s in self._near_optimal_with_crossings(target, pricings) if s.lanes not in lanes]
        task = ChainTask(self.groups, self.region_of_group, self.num_layers, target, share, self.max_depth)
        return choose_chain(task, kept, settings)

    def _crossing_share(self, target: float) -> float:
        """The share of the target that a link between regions carries at most."""
        return min(1.0, self.crossing_tokens_per_s / target)

    def _usable(self, target: float) -> list[PatternStage]:
        """The stages found that carry the target and are wide enough for the links within a region.

        Two stages in a row, each of which gives no node more than a share a of F, put a a F on a link at most. So
        a = sqrt(c / F) suffices for links of capacity c.
        """
        widest = math.sqrt(min(1.0, self.link_tokens_per_s / target)) * (1 + 1e-9)
        usable = [s for s in self.stages.values() if s.rate >= target * (1 - 1e-9)]
        return usable if widest >= 1 else [s for s in usable if s.widest_share(self.groups, target) <= widest]

    def _pricings(self, target: float) -> list[StagePricing]:
        """Pricings for each region, with the rates of lanes that the links allow.

        A lane between two stages may carry sqrt(F c) for links of capacity c (see `_usable`). With c for crossings,
        stages become wide enough to stand at one, also beside a stage that is not wide (lanes of c).
        """
        within = math.sqrt(target * self.link_tokens_per_s)
        pricings = []
        for groups in self.groups_by_region:
            caps = {min(within, target)}
            if len(self.groups_by_region) > 1:
                caps |= {
                    min(within, target, math.sqrt(target * self.crossing_tokens_per_s)),
                    min(within, target, self.crossing_tokens_per_s),
                }
            settings = [(cap, self.link_tokens_per_s) for cap in sorted(caps)]
            if self.max_depth is not None:
                # Under a cap on depth, stages of single nodes side by side are needed: each adds one to the depth.
                settings.append((min(caps), 0.0))
            for lane_cap, link_cap in settings:
                pricing = StagePricing(
                    self.groups, target, self.num_layers, usable_groups=groups, lane_cap=lane_cap, link_cap=link_cap
                )
                if pricing.rates:
                    pricings.append(pricing)
        return pricings

    def _solve_relaxation(self, target: float, pricings: Sequence[StagePricing]) -> LinearSolution:
        """The linear relaxation of the pattern program: its objective is the layers that stages can cover."""

        def column(stage: PatternStage) -> Column:
            return Column(float(stage.length), [*stage.uses, *([] if self.max_depth is None else [stage.depth])])

        return self._generate_columns(self._supply, [], column, target, pricings)

    def _generate_columns(
        self,
        supply: Sequence[float],
        extra: Sequence[Column],
        column: Callable[[PatternStage], Column],
        target: float,
        pricings: Sequence[StagePricing],
    ) -> LinearSolution:
        """Solve a linear program over the usable stages and those that pricing adds, which are kept in `stages`.

        `column` gives a stage's column; `extra` columns stand for no stage. The first rows are the groups.
        """

        def price(duals: NDArray[np.float64]) -> list[Column]:
            prices = duals[: len(self.groups)] + 1e-9
            fresh = [stage for pricing in pricings if not self.watch.is_over() for stage in pricing.cheapest(prices)]
            for stage in fresh:
                self.stages.setdefault(stage.lanes, stage)
            return [column(s) for s in fresh]

        columns = [*extra, *(column(s) for s in self._usable(target))]
        return solve_columns(supply, columns, price, should_stop=self.watch.is_over)

    def _near_optimal(self, target: float, duals: NDArray[np.float64]) -> list[PatternStage]:
        """The stages of the greatest reduced cost for the integer program; in several regions wide ones besides."""
        depth_price = 0.0 if self.max_depth is None else float(duals[-1])
        prices = duals[: len(self.groups)]
        ranked = _ranked(
            (s.length - float(np.dot(s.uses, prices)) - depth_price * s.depth, s) for s in self._usable(target)
        )
        kept = _cheap_enough(ranked)
        if len(self.groups_by_region) == 1:
            return kept
        # Wide stages make the crossings. The best of each region, length and width is kept, whatever it costs.
        share = self._crossing_share(target)
        seen: set[tuple[str, int, bool]] = set()
        lanes = {s.lanes for s in kept}
        for _, stage in ranked:
            width = stage.widest_share(self.groups, target) / (1 + 1e-9)
            for limit in (math.sqrt(share), share):
                key = (self.groups[stage.any_group].region, stage.length, limit == share)
                if width <= limit and key not in seen:
                    seen.add(key)
                    if stage.lanes not in lanes:
                        lanes.add(stage.lanes)
                        kept.append(stage)
        return kept

    def _near_optimal_with_crossings(self, target: float, pricings: Sequence[StagePricing]) -> list[PatternStage]:
        """The stages of the greatest reduced cost in a relaxation that asks for crossings.

        A chain through R regions needs 2 R - 2 wide stages, at most two in each region. The relaxation without them
        values a wide stage no more than a narrow one. With w_r the wide stages that count in region r, it becomes

            max  sum_p l_p y_p + M sum_r w_r    s.t.  sum_p a_pg y_p <= n_g,   w_r <= sum_{p wide, in r} y_p,
                 w_r <= 2,   sum_r w_r <= 2 R - 2.
        """
        count = len(self.groups_by_region)
        width = math.sqrt(self._crossing_share(target)) * (1 + 1e-9)
        # The rows w_r - sum y_p <= 0 have 1e-6 on the right, as the simplex method could cycle on 0.
        supply = [*self._supply, *[1e-6] * count, *[2.0] * count, 2.0 * count - 2]
        wide_row = len(self._supply)

        def crossing(region: int) -> Column:
            uses = np.zeros(len(supply))
            uses[[-1, wide_row + count + region, wide_row + region]] = 1.0
            return Column(CROSSING_VALUE, uses.tolist())

        def column(stage: PatternStage) -> Column:
            uses = np.zeros(len(supply))
            uses[: len(self.groups)] = stage.uses
            if self.max_depth is not None:
                uses[len(self.groups)] = stage.depth
            if stage.widest_share(self.groups, target) <= width:
                uses[wide_row + self.region_of_group[stage.any_group]] = -1.0
            return Column(float(stage.length), uses.tolist())

        duals = self._generate_columns(supply, [crossing(r) for r in range(count)], column, target, pricings).duals
        ranked = _ranked(
            (value - float(np.dot(uses, duals)), s) for s in self._usable(target) for value, uses in [column(s)]
        )
        return _cheap_enough(ranked)


_Reduced = tuple[float, PatternStage]
"""A stage with its reduced cost."""


def _ranked(reduced: Iterable[_Reduced]) -> list[_Reduced]:
    """Stages in falling order of reduced cost per layer."""
    return sorted(reduced, key=lambda pair: (-pair[0] / pair[1].length, pair[1].lanes))


def _cheap_enough(ranked: Sequence[_Reduced]) -> list[PatternStage]:
    """The stages whose reduced cost is at most MAX_LOSS_PER_LAYER per layer below 0, at most MAX_COLUMNS of them."""
    return [s for reduced, s in ranked if reduced > -MAX_LOSS_PER_LAYER * s.length][:MAX_COLUMNS]


def search_flow(
    search: PatternSearch,
    bound: float,
    evaluate: Callable[[StageChain], Candidate],
    low: float = 0.0,
    precision: float = PRECISION,
) -> Candidate | None:
    """The best placement among those of the targets tried, or None when no target gave stages.

    Targets first step down from `bound` until one is reached; then the distance between the best flow and the last
    target that failed is halved until it is within `precision` (relative).

    Parameters
    ----------
    search
        Chooses stages for a target.
    bound
        Tokens/s that no placement exceeds.
    evaluate
        Lays stages out and returns the best placement of them, with its exact maximum flow.
    low
        Tokens/s reached already: targets below it are not tried. The result may carry less.
    precision
        Relative. A precision coarser than PRECISION also lets the search start by halving if `low` is near `bound`.
    """
    best: Candidate | None = None
    low_before, high = low, bound

    def attempt(target: float) -> float | None:
        """Tokens/s of the placement for a target; None when there are no stages for it."""
        nonlocal best, low
        chain = search.attempt(target)
        if chain is None:
            return None
        candidate = evaluate(chain)
        if best is None or candidate.tokens_per_s > best.tokens_per_s:
            best = candidate
            search.watch.report(value=candidate.tokens_per_s, placement=candidate.placement)
        low = max(low, candidate.tokens_per_s)
        return candidate.tokens_per_s

    # Near the bound, halving takes fewer programs than stepping down.
    near = precision > PRECISION and low > CLOSE_SHARE * bound
    for step in () if near else STEPS:
        target = bound * (1 - step)
        if target <= low or search.watch.is_over():
            break
        reached = attempt(target)
        if reached is not None and reached >= target * (1 - 1e-6):
            break
        if reached is None:
            high = target
    if low <= low_before and not near:
        return best
    while high - low > precision * high and not search.watch.is_over():
        target = (low + high) / 2
        reached = attempt(target)
        if reached is None or reached < target * (1 - 1e-6):
            high = target
    return best
