"""The pattern program over several regions in a chain: requests pass the regions one after another, each once.

Two regions are joined by many links, each of which may be thin. Suppose that the stage by which requests leave the one
region spreads the flow F over its nodes so that none carries more than a share alpha, and that the stage by which they
enter the next region does so with a share beta. A link between a node of the one and a node of the other then carries
at most alpha beta F. So links of capacity c suffice if alpha beta F <= c. The program asks for such wide stages at the
crossings. It also decides which region comes first and which last; the order of those between is left to the caller,
which compares orders by their exact maximum flow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pyomo.environ as pyo

from helix_kit.placement.groups import Group
from helix_kit.placement.pattern.program import build
from helix_kit.placement.pattern.stages import PatternStage
from helix_kit.placement.solvers import SolverSettings, solve_model


@dataclass(frozen=True)
class ChainTask:
    """What the chain of stages must satisfy."""

    groups: Sequence[Group]
    region_of_group: Sequence[int]
    """Index of each group's region, from 0."""
    num_layers: int
    flow: float
    """F in tokens/s; every stage carries it."""
    link_share: float
    """The share of F that a link between regions carries at most: c / F, at most 1."""
    max_depth: int | None = None

    @property
    def num_regions(self) -> int:
        """Number of regions."""
        return max(self.region_of_group) + 1


def crossing_splits(share: float, *, every: bool = False) -> list[tuple[float, float]]:
    """Pairs (alpha, beta) with alpha beta = `share`, for the stages that leave a region and that enter the next.

    alpha is at least beta: a chain that has it the other way round, read backwards, has it this way. A stage of a equal
    lanes has alpha = 1 / a. With `every` there are also the pairs with a whole number of lanes on either side of
    sqrt(1 / share): two and three lanes suffice for a share of 1 / 6, where the even pair asks for three and three.

    Examples
    --------
    >>> [(round(a, 2), round(b, 2)) for a, b in crossing_splits(1 / 6, every=True)]
    [(0.41, 0.41), (0.5, 0.33), (1.0, 0.17)]
    """
    if share >= 1:
        return [(1.0, 1.0)]
    root = math.sqrt(share)
    splits = [(root, root)]
    for lanes in (math.floor(1 / root), math.ceil(1 / root)) if every else ():
        pair = max(1 / lanes, lanes * share), min(1 / lanes, lanes * share)
        if pair[0] < 1 and not any(math.isclose(pair[0], alpha) for alpha, _ in splits):
            splits.append(pair)
    return [*splits, (1.0, share)]


def choose_chain(
    task: ChainTask, stages: Sequence[PatternStage], settings: SolverSettings
) -> list[list[PatternStage]] | None:
    """The stages of each region, in the order in which requests pass the regions; None when there are none.

    With s = c / F, alpha beta <= s is asked for as alpha = beta = sqrt(s) first, and last as alpha = 1, beta = s,
    see `crossing_splits`.
    """
    widths = [s.widest_share(task.flow) for s in stages]
    regions = [task.region_of_group[s.any_group] for s in stages]
    supply = [g.size for g in task.groups]
    for exit_share, entry_share in crossing_splits(task.link_share):
        exits = [w <= exit_share * (1 + 1e-9) for w in widths]
        entries = [w <= entry_share * (1 + 1e-9) for w in widths]
        model = build(stages, supply, task.num_layers, exact=False, max_depth=task.max_depth)
        define_region_variables(model, task.num_regions)
        define_first_and_last_constraints(model, regions)
        define_crossing_constraints(model, regions, exits, entries)
        define_only_region_constraints(model)
        solution = solve_model(model, settings)
        if solution.value is not None:
            return _in_order(model, stages, regions, widths)
        if settings.stop is not None and settings.stop():
            return None
    return None


def define_region_variables(model: pyo.ConcreteModel, num_regions: int) -> None:
    """Binary variables of each region: whether it is in use, first, last, has one stage, and is the only one in use."""
    model.regions = pyo.RangeSet(0, num_regions - 1)
    model.in_use = pyo.Var(model.regions, domain=pyo.Binary)
    model.first = pyo.Var(model.regions, domain=pyo.Binary)
    model.last = pyo.Var(model.regions, domain=pyo.Binary)
    model.single_stage = pyo.Var(model.regions, domain=pyo.Binary)
    model.only_region = pyo.Var(model.regions, domain=pyo.Binary)


def define_first_and_last_constraints(model: pyo.ConcreteModel, regions: Sequence[int]) -> None:
    """One region in use is the first and one the last. Only regions in use have stages; `regions[p]` is stage p's."""
    max_stages = max_stages_of_region(regions)
    model.stages_of_used = pyo.Constraint(
        model.regions, rule=lambda m, r: num_stages(m, regions, r) <= max_stages * m.in_use[r]
    )
    model.one_first = pyo.Constraint(expr=sum(model.first.values()) == 1)
    model.one_last = pyo.Constraint(expr=sum(model.last.values()) == 1)
    model.first_in_use = pyo.Constraint(model.regions, rule=lambda m, r: m.first[r] <= m.in_use[r])
    model.last_in_use = pyo.Constraint(model.regions, rule=lambda m, r: m.last[r] <= m.in_use[r])


def define_crossing_constraints(
    model: pyo.ConcreteModel, regions: Sequence[int], exits: Sequence[bool], entries: Sequence[bool]
) -> None:
    """Each region in use has a stage to enter by, unless it is the first, and one to leave by, unless it is the last.

    The two are different stages unless the region has a single one. `exits[p]` and `entries[p]` tell whether stage p is
    wide enough to leave or to enter by.
    """
    max_stages = max_stages_of_region(regions)
    either = [a or b for a, b in zip(exits, entries)]
    model.entry = pyo.Constraint(
        model.regions, rule=lambda m, r: num_stages(m, regions, r, entries) >= m.in_use[r] - m.first[r]
    )
    model.exit = pyo.Constraint(
        model.regions, rule=lambda m, r: num_stages(m, regions, r, exits) >= m.in_use[r] - m.last[r]
    )
    model.two_stages = pyo.Constraint(
        model.regions,
        rule=lambda m, r: (
            num_stages(m, regions, r, either) >= 2 * m.in_use[r] - m.first[r] - m.last[r] - m.single_stage[r]
        ),
    )
    model.one_stage = pyo.Constraint(
        model.regions,
        rule=lambda m, r: num_stages(m, regions, r) <= max_stages - (max_stages - 1) * m.single_stage[r],
    )


def define_only_region_constraints(model: pyo.ConcreteModel) -> None:
    """A region is first and last at once only if no other region is in use."""
    num_regions = len(model.regions)
    model.first_and_last = pyo.Constraint(
        model.regions, rule=lambda m, r: m.first[r] + m.last[r] <= 1 + m.only_region[r]
    )
    model.no_other = pyo.Constraint(
        model.regions,
        rule=lambda m, r: sum(m.in_use[q] for q in m.regions if q != r) <= num_regions * (1 - m.only_region[r]),
    )


def max_stages_of_region(regions: Sequence[int]) -> int:
    """A number of stages that no region reaches, for constraints that a binary variable switches off."""
    return max(200, len(regions))


def num_stages(
    m: pyo.ConcreteModel, regions: Sequence[int], region: int, which: Sequence[bool] | None = None
) -> object:
    """Number of chosen stages of a region; with `which`, of those for which it is true."""
    counts = [m.count[p] for p, r in enumerate(regions) if r == region and (which is None or which[p])]
    return sum(counts) if counts else 0.0 * m.in_use[region]


def _in_order(
    model: pyo.ConcreteModel, stages: Sequence[PatternStage], regions: Sequence[int], widths: Sequence[float]
) -> list[list[PatternStage]]:
    """The chosen stages of each region in use, from the first region to the last.

    Within a region the widest stages come first and last, for the crossings; in the first region the widest comes last,
    as nothing crosses into it.
    """
    chosen: dict[int, list[tuple[float, PatternStage]]] = {r: [] for r in model.regions}
    for p, stage in enumerate(stages):
        chosen[regions[p]] += [(widths[p], stage)] * round(model.count[p].value)
    order = sorted(
        (r for r in chosen if chosen[r]),
        key=lambda r: (-round(model.first[r].value), round(model.last[r].value), r),
    )
    chain = []
    for r in order:
        ranked = [s for _, s in sorted(chosen[r], key=lambda pair: (pair[0], -pair[1].length, pair[1].lanes))]
        if round(model.first[r].value):
            ranked = ranked[1:] + ranked[:1]
        elif len(ranked) > 1 and not round(model.last[r].value):
            ranked = [ranked[0], *ranked[2:], ranked[1]]
        chain.append(ranked)
    return chain
