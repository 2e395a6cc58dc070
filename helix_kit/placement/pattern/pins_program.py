"""The pattern program around pins: stages fill the segments between the pins' ends.

The ends of the pinned ranges cut the model into segments. Within a segment the pinned nodes carry a fixed rate, so
stages have to carry only what is missing to the target F. Each segment j has a row for its L_j layers; all segments
share the nodes that are not pinned:

    max  sum_jp l_p y_jp    s.t.  sum_jp a_pg y_jp <= n_g,   sum_p l_p y_jp <= L_j,   y integer >= 0

F is reached if every segment is filled.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pyomo.environ as pyo
from numpy.typing import NDArray

from helix_kit.flow import Placement
from helix_kit.placement.groups import Group
from helix_kit.placement.pattern.pricing import StagePricing
from helix_kit.placement.pattern.search import MAX_LOSS_PER_LAYER, PROGRAM_LIMIT_S
from helix_kit.placement.pattern.stages import PatternStage, uniform_stages
from helix_kit.placement.problem import Problem
from helix_kit.placement.solvers import SolverSettings, solve_model
from helix_kit.placement.solvers.columns import Column, LinearSolution, solve_columns
from helix_kit.placement.solvers.parts import (
    Slot,
    assign_nodes,
    chosen_columns,
    define_depth_constraint,
    define_node_supply_constraints,
)
from helix_kit.placement.watch import Watch

MAX_COLUMNS = 300
"""Stages kept for the integer program, for each segment that is filled."""


@dataclass(frozen=True)
class Segment:
    """Layers [start, end) between two ends of pinned ranges."""

    start: int
    end: int
    pinned_tokens_per_s: float
    """What the pinned nodes that hold these layers carry together."""

    @property
    def length(self) -> int:
        """Number of layers."""
        return self.end - self.start


class SegmentStage(NamedTuple):
    """A stage for the segment of that index."""

    segment: int
    stage: PatternStage


def segments_of(problem: Problem, pins: Placement) -> list[Segment]:
    """The model cut at the ends of the pinned ranges."""
    cuts = sorted({0, problem.num_layers, *(cut for span in pins.values() for cut in span)})
    speed = problem.node_throughput(pins)
    segments = []
    for start, end in pairwise(cuts):
        carried = sum(speed[n] for n, (s, e) in pins.items() if s <= start and end <= e)
        segments.append(Segment(start, end, carried))
    return segments


@dataclass(frozen=True)
class PinnedSearch:
    """Chooses stages around pins for targets."""

    pins: Placement
    segments: Sequence[Segment]
    groups: Sequence[Group]
    """The nodes that are not pinned."""
    watch: Watch
    solver: str = "highs"
    seed: int = 0
    max_depth: int | None = None
    """The largest number of nodes that a request may pass."""

    def attempt(self, target: float) -> Placement | None:
        """A placement whose segments all carry `target` tokens/s; None when none is found."""
        is_open = [s.pinned_tokens_per_s < target * (1 - 1e-9) for s in self.segments]
        segments = [s for s, opened in zip(self.segments, is_open) if opened]
        if not segments:
            return dict(self.pins)
        if not self.groups:
            return None
        depth_left = None
        if self.max_depth is not None:
            # A request passes at least one pinned node in each run of segments that the pins carry.
            runs = sum(not is_open[i] and (i == 0 or is_open[i - 1]) for i in range(len(is_open)))
            depth_left = self.max_depth - runs
            if depth_left < 1:
                return None
        stages, relaxation = self._solve_relaxation(segments, target, depth_left)
        if relaxation.objective < sum(s.length for s in segments) - 1e-6:
            return None
        kept = self._near_optimal(stages, relaxation.duals, len(segments))
        limit_s, stop = self.watch.solver_limit(PROGRAM_LIMIT_S)
        settings = SolverSettings(self.solver, limit_s, seed=self.seed, stop=stop)
        chosen = choose(kept, self.groups, segments, settings, depth_left)
        if chosen is None:
            return None
        return {**self.pins, **assign_nodes(_slots(chosen, segments), self.groups)}

    def _solve_relaxation(
        self, segments: Sequence[Segment], target: float, depth_left: int | None
    ) -> tuple[list[SegmentStage], LinearSolution]:
        """The linear relaxation by column generation, and all stages found for it.

        Rows are the groups, the segments' layers and, under a cap on depth, the depth that is left: stages use up depth
        as they use up nodes.
        """
        rows = len(self.groups)
        supply = [float(g.size) for g in self.groups] + [float(s.length) for s in segments]
        supply += [] if depth_left is None else [float(depth_left)]
        stages: list[SegmentStage] = []
        pricings = []
        for index, segment in enumerate(segments):
            missing = target - segment.pinned_tokens_per_s
            uniform = uniform_stages(self.groups, missing)
            stages += [SegmentStage(index, s) for s in uniform if s.length <= segment.length]
            pricings.append((index, StagePricing(self.groups, missing, segment.length)))
            if depth_left is not None:
                # Under a cap on depth, stages of single nodes side by side are needed: each adds one to the depth.
                pricings.append((index, StagePricing(self.groups, missing, segment.length, link_cap=0.0)))

        def column(index: int, stage: PatternStage) -> Column:
            layers = [float(stage.length) if i == index else 0.0 for i in range(len(segments))]
            depth = [] if depth_left is None else [float(stage.depth)]
            return Column(float(stage.length), [*map(float, stage.uses), *layers, *depth])

        def price(duals: NDArray[np.float64]) -> list[Column]:
            fresh = []
            for index, pricing in pricings:
                cheapest = pricing.cheapest(duals[:rows] + 1e-9)
                fresh += [SegmentStage(index, s) for s in cheapest if s.length <= pricing.max_length]
            stages.extend(fresh)
            return [column(*s) for s in fresh]

        columns = [column(*s) for s in stages]
        return stages, solve_columns(supply, columns, price, should_stop=self.watch.is_over)

    def _near_optimal(
        self, stages: Sequence[SegmentStage], duals: NDArray[np.float64], num_segments: int
    ) -> list[SegmentStage]:
        """The stages of the greatest reduced cost per layer, for the integer program."""
        rows = len(self.groups)
        depth_price = 0.0 if self.max_depth is None else float(duals[-1])
        unique = {(i, s.lanes): s for i, s in stages}
        ranked = sorted(
            (
                (s.length * (1 - duals[rows + i]) - float(np.dot(s.uses, duals[:rows])) - depth_price * s.depth, i, s)
                for (i, _), s in unique.items()
            ),
            key=lambda t: (-t[0] / t[2].length, t[1], t[2].lanes),
        )
        kept = [SegmentStage(i, s) for reduced, i, s in ranked if reduced > -MAX_LOSS_PER_LAYER * s.length]
        return kept[: MAX_COLUMNS * num_segments]


def choose(
    stages: Sequence[SegmentStage],
    groups: Sequence[Group],
    segments: Sequence[Segment],
    settings: SolverSettings,
    max_depth: int | None = None,
) -> list[SegmentStage] | None:
    """Stages that fill every segment exactly; None when the solver finds none in time."""
    if len({s.segment for s in stages}) < len(segments):
        return None
    model = pyo.ConcreteModel("pinned")
    model.count = pyo.Var(range(len(stages)), domain=pyo.NonNegativeIntegers)
    define_segments(model, stages, segments)
    define_node_supply_constraints(model, [s.stage.uses for s in stages], [group.size for group in groups])
    if max_depth is not None:
        define_depth_constraint(model, [s.stage.depth for s in stages], max_depth)
    solution = solve_model(model, settings)
    if solution.value is None or solution.value < sum(s.length for s in segments) - 1e-6:
        return None
    return chosen_columns(model, stages)


def define_segments(model: pyo.ConcreteModel, stages: Sequence[SegmentStage], segments: Sequence[Segment]) -> None:
    """The objective, the layers of all stages, and each segment's limit on the layers of its own stages."""
    filled = [
        sum(s.stage.length * model.count[p] for p, s in enumerate(stages) if s.segment == j)
        for j in range(len(segments))
    ]
    model.layers = pyo.Objective(expr=sum(filled), sense=pyo.maximize)
    model.fits = pyo.Constraint(range(len(segments)), rule=lambda _, j: filled[j] <= segments[j].length)


def _slots(chosen: Sequence[SegmentStage], segments: Sequence[Segment]) -> Iterator[Slot]:
    """Layer ranges of the nodes of the chosen stages, laid one after another from the start of their segment."""
    at = [s.start for s in segments]
    for index, stage in chosen:
        yield from stage.slots(at[index], segments[index].end)
        at[index] += stage.length
