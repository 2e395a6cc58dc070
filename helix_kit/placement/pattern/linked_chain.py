"""The pattern program over several regions in a chain, where each crossing has a split of its own.

`chain_program` asks for the same pair of widths at all crossings. Here a binary variable says that region q follows
region r with split k: r is left by a stage that gives no lane more than a share alpha_k of the flow, and q is entered
by one that gives none more than beta_k, with alpha_k beta_k at most what a link carries. One program decides the order
of the regions, the splits and the stages, where `chain_program` solves one for each split.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import permutations
from typing import Any

import pyomo.environ as pyo

from helix_kit.placement.pattern.chain_program import ChainTask, crossing_splits, max_stages_of_region, num_stages
from helix_kit.placement.pattern.program import build
from helix_kit.placement.pattern.stages import PatternStage
from helix_kit.placement.solvers import SolverSettings, solve_model

MARGIN = 1 + 1e-9
"""Widths are compared with this margin."""

_Link = tuple[int, int, int]
"""A region, the region that follows it, and the number of the split."""


def choose_linked_chain(
    task: ChainTask, stages: Sequence[PatternStage], settings: SolverSettings
) -> list[list[PatternStage]] | None:
    """The stages of each region, in the order in which requests pass the regions; None when there are none.

    Every split of `crossing_splits` may be taken either way round.
    """
    one_way = crossing_splits(task.link_share, every=True)
    splits = list(dict.fromkeys([*one_way, *((b, a) for a, b in one_way)]))
    widths = [s.widest_share(task.flow) for s in stages]
    regions = [task.region_of_group[s.any_group] for s in stages]
    supply = [g.size for g in task.groups]
    model = build(stages, supply, task.num_layers, exact=False, max_depth=task.max_depth)
    used = sorted(set(regions))
    define_order(model, used, len(splits))
    define_stages_of_regions(model, regions)
    define_crossings(model, (widths, regions), splits)
    solution = solve_model(model, settings)
    return None if solution.value is None else _in_order(model, stages, (widths, regions), splits)


def define_order(model: pyo.ConcreteModel, regions: Sequence[int], num_splits: int) -> None:
    """Regions in use follow one another in a row: `follows[r, q, k]` says that q comes after r, with split k."""
    model.regions = pyo.Set(initialize=regions, ordered=True)
    links = [(r, q, k) for r, q in permutations(regions, 2) for k in range(num_splits)]
    model.follows = pyo.Var(links, domain=pyo.Binary)
    model.in_use = pyo.Var(model.regions, domain=pyo.Binary)
    model.first = pyo.Var(model.regions, domain=pyo.Binary)
    model.last = pyo.Var(model.regions, domain=pyo.Binary)
    model.single_stage = pyo.Var(model.regions, domain=pyo.Binary)
    model.place = pyo.Var(model.regions, bounds=(0, len(regions) - 1))

    def total(links: Iterable[_Link]) -> Any:
        return sum(model.follows[link] for link in links)

    model.one_first = pyo.Constraint(expr=sum(model.first.values()) == 1)
    model.one_last = pyo.Constraint(expr=sum(model.last.values()) == 1)
    model.left = pyo.Constraint(
        model.regions, rule=lambda m, r: total(e for e in links if e[0] == r) + m.last[r] == m.in_use[r]
    )
    model.entered = pyo.Constraint(
        model.regions, rule=lambda m, q: total(e for e in links if e[1] == q) + m.first[q] == m.in_use[q]
    )
    # Without numbers that rise along the row there could be rings beside it.
    pairs = [(r, q) for r in regions for q in regions if q != r]
    model.rising = pyo.Constraint(
        pairs,
        rule=lambda m, r, q: (
            m.place[q] >= m.place[r] + 1 - len(regions) * (1 - total(e for e in links if e[:2] == (r, q)))
        ),
    )


def define_stages_of_regions(model: pyo.ConcreteModel, regions: Sequence[int]) -> None:
    """Only regions in use have stages; a region with a single stage is entered and left by the same one."""
    most = max_stages_of_region(regions)
    model.stages_of_used = pyo.Constraint(
        model.regions, rule=lambda m, r: num_stages(m, regions, r) <= most * m.in_use[r]
    )
    model.one_stage = pyo.Constraint(
        model.regions, rule=lambda m, r: num_stages(m, regions, r) <= most - (most - 1) * m.single_stage[r]
    )


def define_crossings(
    model: pyo.ConcreteModel,
    widths_and_regions: tuple[Sequence[float], Sequence[int]],
    splits: Sequence[tuple[float, float]],
) -> None:
    """Each crossing has a stage that is wide enough on either side; a region's two are different unless it has one."""
    widths, of = widths_and_regions
    limits = sorted({width for pair in splits for width in pair})

    def wide(r: int, limit: float) -> Any:
        return sum(model.count[p] for p, w in enumerate(widths) if of[p] == r and w <= limit * MARGIN)

    def leaving(r: int, limit: float) -> Any:
        return sum(model.follows[e] for e in model.follows if e[0] == r and splits[e[2]][0] <= limit)

    def entering(q: int, limit: float) -> Any:
        return sum(model.follows[e] for e in model.follows if e[1] == q and splits[e[2]][1] <= limit)

    model.crossings = pyo.ConstraintList()
    for r in model.regions:
        for limit in limits:
            model.crossings.add(0 * model.in_use[r] + wide(r, limit) >= leaving(r, limit))
            model.crossings.add(0 * model.in_use[r] + wide(r, limit) >= entering(r, limit))
            model.crossings.add(
                0 * model.in_use[r] + wide(r, limit) >= leaving(r, limit) + entering(r, limit) - model.single_stage[r]
            )


def _in_order(
    model: pyo.ConcreteModel,
    stages: Sequence[PatternStage],
    widths_and_regions: tuple[Sequence[float], Sequence[int]],
    splits: Sequence[tuple[float, float]],
) -> list[list[PatternStage]]:
    """The chosen stages of the regions from the first to the last; those at crossings first and last in a region."""
    widths, of = widths_and_regions
    chosen: dict[int, list[tuple[float, PatternStage]]] = {r: [] for r in model.regions}
    for p, stage in enumerate(stages):
        chosen[of[p]] += [(widths[p], stage)] * round(model.count[p].value)
    following = {e[0]: (e[1], splits[e[2]]) for e, var in model.follows.items() if round(var.value)}
    region: int | None = next(r for r in model.regions if round(model.first[r].value))
    chain, entry = [], 1.0
    while region is not None:
        successor, (leave, enter) = following.get(region, (None, (1.0, 1.0)))
        if chosen[region]:
            chain.append(_within(chosen[region], entry, leave))
        region, entry = successor, enter
    return chain


def _within(chosen: list[tuple[float, PatternStage]], entry: float, leave: float) -> list[PatternStage]:
    """Stages of a region with one of width `entry` at most first and one of width `leave` at most last.

    The stage for the smaller width is taken first, and for each the widest lanes that suffice.
    """
    rest = sorted(chosen, key=lambda pair: (-pair[0], -pair[1].length, pair[1].lanes))
    ends: dict[bool, list[PatternStage]] = {False: [], True: []}
    for is_last, limit in sorted([(False, entry), (True, leave)], key=lambda end: end[1]):
        at = next((i for i, (width, _) in enumerate(rest) if width <= limit * MARGIN), None)
        if at is not None and limit < 1:
            ends[is_last].append(rest.pop(at)[1])
    return [*ends[False], *(stage for _, stage in rest), *ends[True]]
