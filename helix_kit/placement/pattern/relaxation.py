"""A linear relaxation of the pattern program, and which stages its duals recommend to the integer program."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from helix_kit.placement.pattern.stages import PatternStage
from helix_kit.placement.solvers.columns import Column

MAX_LOSS_PER_LAYER = 0.15
"""A stage is kept for the integer program if its reduced cost is above -MAX_LOSS_PER_LAYER times its length. The stages
of the relaxation's optimum alone (reduced cost 0) seldom make up a whole model."""
MAX_COLUMNS = 600
"""Stages kept for the integer program, at most."""
CROSSING_VALUE = 4.0
"""Value of a wide stage at a crossing, in layers. It is far more than such a stage costs, so none is left out."""


class Form(NamedTuple):
    """A linear relaxation of the pattern program: its rows, and how a stage stands in it."""

    supply: Sequence[float]
    """Right-hand sides; the first rows are the planned groups."""
    extra: Sequence[Column]
    """Columns that stand for no stage."""
    column: Callable[[PatternStage], Column]


def form_with_crossings(plain: Form, num_regions: int, wide_region: Callable[[PatternStage], int | None]) -> Form:
    """The relaxation that asks for crossings; `wide_region` gives the region of a wide stage, None for any other.

    A chain through R regions needs 2 R - 2 wide stages, at most two in each region. The relaxation without them values
    a wide stage no more than a narrow one. With w_r the wide stages that count in region r, it becomes

        max  sum_p l_p y_p + M sum_r w_r    s.t.  sum_p a_pg y_p <= n_g,   w_r <= sum_{p wide, in r} y_p,
             w_r <= 2,   sum_r w_r <= 2 R - 2.
    """
    first, count = len(plain.supply), num_regions
    # The rows w_r - sum y_p <= 0 have 1e-6 on the right, as the simplex method could cycle on 0.
    supply = [*plain.supply, *[1e-6] * count, *[2.0] * count, 2.0 * count - 2]

    def crossing(region: int) -> Column:
        uses = np.zeros(len(supply))
        uses[[-1, first + count + region, first + region]] = 1.0
        return Column(CROSSING_VALUE, uses.tolist())

    def column(stage: PatternStage) -> Column:
        value, of_plain = plain.column(stage)
        uses = np.zeros(len(supply))
        uses[:first] = of_plain
        region = wide_region(stage)
        if region is not None:
            uses[first + region] = -1.0
        return Column(value, uses.tolist())

    return Form(supply, [crossing(r) for r in range(count)], column)


_Reduced = tuple[float, PatternStage]
"""A stage with its reduced cost."""


def by_reduced_cost(reduced: Iterable[_Reduced]) -> list[_Reduced]:
    """Stages in falling order of reduced cost per layer."""
    return sorted(reduced, key=lambda pair: (-pair[0] / pair[1].length, pair[1].lanes))


def cheap_enough(ranked: Sequence[_Reduced], most: int = MAX_COLUMNS) -> list[PatternStage]:
    """The stages whose reduced cost is at most MAX_LOSS_PER_LAYER per layer below 0, `most` of them at most."""
    return [s for reduced, s in ranked if reduced > -MAX_LOSS_PER_LAYER * s.length][:most]


def joined(stages: Sequence[PatternStage], others: Sequence[PatternStage]) -> list[PatternStage]:
    """Stages of both, each once."""
    return list({s.lanes: s for s in (*stages, *others)}.values())
