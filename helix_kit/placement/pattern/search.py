"""The search for the largest flow F whose pattern program covers the model, in one region or a chain of regions.

For a target F, column generation finds good stages: the linear relaxation of the pattern program is solved, and its
duals price further stages. An integer program then chooses whole stages. `targets` says which F are tried.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from helix_kit.flow import Placement
from helix_kit.placement.groups import Group
from helix_kit.placement.pattern.chain_program import ChainTask, choose_chain, crossing_splits
from helix_kit.placement.pattern.linked_chain import choose_linked_chain
from helix_kit.placement.pattern.pools import Pools
from helix_kit.placement.pattern.pricing import StagePricing
from helix_kit.placement.pattern.program import choose
from helix_kit.placement.pattern.relaxation import (
    MAX_COLUMNS,
    MAX_LOSS_PER_LAYER,
    Form,
    by_reduced_cost,
    cheap_enough,
    form_with_crossings,
    joined,
)
from helix_kit.placement.pattern.stages import Lane, PatternStage, uniform_stages
from helix_kit.placement.pattern.whole_stages import cheapest_whole_stages, is_there
from helix_kit.placement.solvers import SolverSettings
from helix_kit.placement.solvers.columns import Column, LinearSolution, solve_columns
from helix_kit.placement.watch import Watch

STEPS = (0.0, 0.0004, 0.002, 0.006, 0.015, 0.03, 0.06, 0.12, 0.25, 0.5, 0.75, 0.9, 0.97)
"""Shares below the bound at which targets are tried in turn, until one is reached."""
PRECISION = 2e-4
"""Relative distance between a flow reached and a target that failed at which the search ends."""
PROGRAM_LIMIT_S = 4.0
"""Seconds for one integer program."""
WHOLE_ROUNDS, WHOLE_GAIN, MAX_WHOLE = 4, 0.02, 1500
"""Rounds of listing stages that there are nodes for, the layers that a round must gain for another, and the stages that
are kept for the integer program."""
LINKED_GAP = 0.05
"""Relative gap at which a thorough search takes the chain of regions that the solver has."""
WHOLE_PRICE = 1e-4
"""Price of a node that is not scarce, in layers: of stages that cost as much, those of fewer nodes come first."""

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
    is_thorough: bool = False
    """Whether stages are listed that there are nodes for; in several regions, also stages that take nodes of several of
    them. That takes several times as long."""
    is_pooled: bool = False
    """Whether stages may take nodes of several regions, see `Pools`."""

    @cached_property
    def pools(self) -> Pools:
        """The nodes of each kind in all regions."""
        return Pools(self.groups, self.is_pooled)

    @cached_property
    def _with_pools(self) -> PatternSearch:
        """The same search with pools; it keeps the stages that it finds for further targets."""
        return replace(self, is_pooled=True, stages={})

    @cached_property
    def planned(self) -> list[Group]:
        """The groups of the regions and, as a region beside them, the pools."""
        return self.pools.planned

    @cached_property
    def groups_by_region(self) -> list[list[int]]:
        """Indices of the planned groups of each region."""
        groups: dict[str, list[int]] = {}
        for index, group in enumerate(self.planned):
            groups.setdefault(group.region, []).append(index)
        return list(groups.values())

    @cached_property
    def region_of_group(self) -> list[int]:
        """Index of each planned group's region."""
        region_of = {g: r for r, groups in enumerate(self.groups_by_region) for g in groups}
        return [region_of[g] for g in range(len(self.planned))]

    @property
    def _supply(self) -> list[int]:
        """Right-hand side of the relaxation: the nodes of each group and, under a cap on depth, the cap.

        A cap on depth is one more row: stages use up depth as they use up nodes.
        """
        return [g.size for g in self.planned] + ([] if self.max_depth is None else [self.max_depth])

    def _add(self, stages: Iterable[PatternStage]) -> list[PatternStage]:
        """Keep stages for further targets; returns them as they are kept."""
        counted = [self.pools.count(s) for s in stages]
        for stage in counted:
            self.stages.setdefault(stage.lanes, stage)
        return counted

    def _is_of_pool(self, stage: PatternStage) -> bool:
        """Whether its nodes may lie in several regions."""
        return stage.any_group >= len(self.groups)

    def attempt(self, target: float) -> StageChain | None:
        """Stages that carry `target` tokens/s through all layers; None when none are found."""
        is_pooled = self.is_thorough and len(self.groups_by_region) > 1
        return (self._with_pools if is_pooled else self)._attempt(target)

    def _attempt(self, target: float) -> StageChain | None:
        pricings = self._pricings(target)
        if not pricings:
            return None
        self._add(uniform_stages(self.planned, target))
        form, kept = self._plain_form(), []
        crosses = len(self.groups_by_region) > 1 and self._crossing_share(target) < 1
        if not (crosses and self.is_thorough):
            relaxation = self._generate_columns(form, target, pricings)
            if relaxation.objective < self.num_layers - 1e-6:
                return None
            kept, duals = self._near_optimal(target, relaxation.duals), relaxation.duals
        if crosses:
            form = self._form_with_crossings(target)
            duals = self._generate_columns(form, target, pricings).duals
            kept = joined(kept or self._near_optimal(target, duals), self._ranked_by(form, duals, target))
        if not self.is_thorough:
            return self._choose(target, kept)
        whole = self._whole(form, duals, target, pricings)
        if not whole:
            return None
        supply = [g.size for g in self.planned]
        return self._choose(target, joined([s for s in kept if is_there(s, supply)], whole))

    def _choose(self, target: float, stages: Sequence[PatternStage]) -> StageChain | None:
        """Stages that make up the model, chosen by an integer program."""
        supply = [g.size for g in self.planned]
        limit_s, stop = self.watch.solver_limit(PROGRAM_LIMIT_S)
        settings = SolverSettings(self.solver, limit_s, seed=self.seed, stop=stop)
        if len(self.groups_by_region) == 1:
            chosen = choose(stages, supply, self.num_layers, settings, max_depth=self.max_depth)
            return None if chosen is None else [sorted(chosen, key=lambda s: (-s.length, s.lanes))]
        share = self._crossing_share(target)
        task = ChainTask(self.planned, self.region_of_group, self.num_layers, target, share, self.max_depth)
        chain = choose_chain(task, stages, settings)
        if chain is None and self.is_thorough and not self.watch.is_over():
            # What is above the model's layers is cut off: any solution serves, not only one of the fewest layers.
            chain = choose_linked_chain(task, stages, replace(settings, mip_gap=LINKED_GAP))
        return None if chain is None else self.pools.settle(chain)

    def _whole(
        self, form: Form, duals: NDArray[np.float64], target: float, pricings: Sequence[StagePricing]
    ) -> list[PatternStage]:
        """Stages that there are nodes for: pricing does not know their number, so it finds few where nodes are few.

        None are returned when the linear program over them shows that they do not make up the model.
        """
        supply, most = [g.size for g in self.planned], 0.0
        for _ in range(WHOLE_ROUNDS):
            prices = self.pools.prices(duals) + WHOLE_PRICE
            for pricing in pricings:
                self._add(cheapest_whole_stages(pricing, prices, MAX_LOSS_PER_LAYER, self.watch.is_over))
            columns = [form.column(s) for s in self._usable(target) if is_there(s, supply)]
            solution = solve_columns(form.supply, [*form.extra, *columns], should_stop=self.watch.is_over)
            duals = solution.duals
            if solution.objective < most + WHOLE_GAIN or self.watch.is_over():
                break
            most = solution.objective
        if solution.optimal and solution.objective < self.num_layers - 1e-6:
            return []
        return [s for s in self._ranked_by(form, duals, target, MAX_WHOLE) if is_there(s, supply)]

    def _crossing_share(self, target: float) -> float:
        """The share of the target that a link between regions carries at most."""
        return min(1.0, self.crossing_tokens_per_s / target)

    def _widths(self, target: float) -> list[float]:
        """Shares of the target that a lane carries at most in a stage at a crossing, the largest first."""
        splits = crossing_splits(self._crossing_share(target), every=self.is_thorough)
        return sorted({width for pair in splits for width in pair if width < 1}, reverse=True) or [1.0]

    def _usable(self, target: float) -> list[PatternStage]:
        """The stages found that carry the target and are wide enough for the links within a region.

        Two stages in a row, each of which gives no node more than a share a of F, put a a F on a link at most. So
        a = sqrt(c / F) suffices for links of capacity c.
        """
        widest = math.sqrt(min(1.0, self.link_tokens_per_s / target)) * (1 + 1e-9)
        widest_pooled = min(widest, math.sqrt(self._crossing_share(target)) * (1 + 1e-9))
        return [
            s
            for s in self.stages.values()
            if s.rate >= target * (1 - 1e-9)
            and ((limit := widest_pooled if self._is_of_pool(s) else widest) >= 1 or s.widest_share(target) <= limit)
        ]

    def _pricings(self, target: float) -> list[StagePricing]:
        """Pricings for each region, with the rates of lanes that the links allow.

        A lane between two stages may carry sqrt(F c) for links of capacity c (see `_usable`). With c for crossings,
        stages become wide enough to stand at one, also beside a stage that is not wide (lanes of c; see `_widths`).
        """
        within = math.sqrt(target * self.link_tokens_per_s)
        pricings = []
        for groups in self.groups_by_region:
            caps, link_cap = {min(within, target)}, self.link_tokens_per_s
            if len(self.groups_by_region) > 1:
                wide = {min(within, target * width) for width in self._widths(target)}
                is_pool = groups[0] >= len(self.groups)
                caps = wide if is_pool else caps | wide
                link_cap = min(link_cap, self.crossing_tokens_per_s) if is_pool else link_cap
            settings = [(cap, link_cap) for cap in sorted(caps)]
            if self.max_depth is not None:
                # Under a cap on depth, stages of single nodes side by side are needed: each adds one to the depth.
                settings.append((min(caps), 0.0))
            for lane_cap, link_cap in settings:
                pricing = StagePricing(
                    self.planned, target, self.num_layers, usable_groups=groups, lane_cap=lane_cap, link_cap=link_cap
                )
                if pricing.rates:
                    pricings.append(pricing)
        return pricings

    def _plain_form(self) -> Form:
        """The relaxation without crossings: its objective is the layers that stages can cover."""

        def column(stage: PatternStage) -> Column:
            return Column(float(stage.length), [*stage.uses, *([] if self.max_depth is None else [stage.depth])])

        return Form(self._supply, [], column)

    def _generate_columns(self, form: Form, target: float, pricings: Sequence[StagePricing]) -> LinearSolution:
        """Solve a relaxation over the usable stages and those that pricing adds, which are kept in `stages`."""

        def price(duals: NDArray[np.float64]) -> list[Column]:
            prices = self.pools.prices(duals) + 1e-9
            fresh = [stage for pricing in pricings if not self.watch.is_over() for stage in pricing.cheapest(prices)]
            return [form.column(s) for s in self._add(fresh)]

        columns = [*form.extra, *(form.column(s) for s in self._usable(target))]
        return solve_columns(form.supply, columns, price, should_stop=self.watch.is_over)

    def _near_optimal(self, target: float, duals: NDArray[np.float64]) -> list[PatternStage]:
        """The stages of the greatest reduced cost for the integer program; in several regions wide ones besides."""
        depth_price = 0.0 if self.max_depth is None else float(duals[len(self.planned)])
        prices = duals[: len(self.planned)]
        ranked = by_reduced_cost(
            (s.length - float(np.dot(s.uses, prices)) - depth_price * s.depth, s) for s in self._usable(target)
        )
        kept = cheap_enough(ranked)
        if len(self.groups_by_region) == 1:
            return kept
        # Wide stages make the crossings. The best of each region, length and width is kept, whatever it costs.
        widths = self._widths(target)
        seen: set[tuple[str, int, float]] = set()
        lanes = {s.lanes for s in kept}
        for _, stage in ranked:
            width = stage.widest_share(target) / (1 + 1e-9)
            for limit in widths:
                key = (self.planned[stage.any_group].region, stage.length, limit)
                if width <= limit and key not in seen:
                    seen.add(key)
                    if stage.lanes not in lanes:
                        lanes.add(stage.lanes)
                        kept.append(stage)
        return kept

    def _ranked_by(
        self, form: Form, duals: NDArray[np.float64], target: float, most: int = MAX_COLUMNS
    ) -> list[PatternStage]:
        """The stages of the greatest reduced cost in a relaxation."""
        columns = ((form.column(s), s) for s in self._usable(target))
        ranked = by_reduced_cost((value - float(np.dot(uses, duals)), s) for (value, uses), s in columns)
        return cheap_enough(ranked, most)

    def _form_with_crossings(self, target: float) -> Form:
        """The relaxation that asks for crossings. Stages of pools need none: all of them are wide."""
        count = len(self.groups_by_region) - self.is_pooled
        width = math.sqrt(self._crossing_share(target)) * (1 + 1e-9)

        def wide_region(stage: PatternStage) -> int | None:
            is_wide = not self._is_of_pool(stage) and stage.widest_share(target) <= width
            return self.region_of_group[stage.any_group] if is_wide else None

        return form_with_crossings(self._plain_form(), count, wide_region)
