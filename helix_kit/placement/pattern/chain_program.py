"""The pattern program over several regions in a chain: requests pass each region once.

The links between two regions are many but thin. If the exit block of one region spreads the flow over nodes none
of which carries more than a share alpha, and the entry block of the next none more than beta, then links carry at
most alpha beta F each; so it is enough to ask for wide blocks at the crossings: alpha beta F <= c. Which region
comes first and last is left to the program, the order of the others to an exact max flow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyomo.environ as pyo

from helix_kit.placement.pattern.program import build
from helix_kit.placement.pattern.stages import Stage
from helix_kit.placement.solvers import SolverSettings, solve_model

if TYPE_CHECKING:
    from helix_kit.placement.pattern.search import PatternSearch


def choose_chain(
    search: PatternSearch,
    stages: Sequence[Stage],
    flow: float,
    share: float,
    settings: SolverSettings,
    *,
    max_depth: int | None = None,
) -> list[list[Stage]] | None:
    """Stages of each region in order of the chain, or None; `share` is the most of `flow` that one link carries."""
    widths = [s.widest_share(search.groups, flow) for s in stages]
    region_of = {g: r for r, members in enumerate(search.regions) for g in members}
    regions = [region_of[s.region] for s in stages]
    root = math.sqrt(share)
    splits = [(root, root)] if share >= 1 else [(root, root), (1.0, share), (share, 1.0)]
    for exit_share, entry_share in splits:
        exits = [w <= exit_share * (1 + 1e-9) for w in widths]
        entries = [w <= entry_share * (1 + 1e-9) for w in widths]
        model = build(stages, [g.size for g in search.groups], search.num_layers, exact=False, max_depth=max_depth)
        define_chain_constraints(model, regions, exits, entries, len(search.regions))
        solution = solve_model(model, settings)
        if solution.value is not None:
            return _in_order(model, stages, regions, widths, len(search.regions))
        if settings.stop is not None and settings.stop():
            return None
    return None


def define_chain_constraints(
    model: pyo.ConcreteModel,
    region_of: Sequence[int],
    exits: Sequence[bool],
    entries: Sequence[bool],
    num_regions: int,
) -> None:
    """Every region in use has a block to enter by, unless it is the first, and one to leave by, unless the last.

    The two are different blocks unless the region has a single one.
    """
    every = range(num_regions)
    model.in_use = pyo.Var(every, domain=pyo.Binary)
    model.first = pyo.Var(every, domain=pyo.Binary)
    model.last = pyo.Var(every, domain=pyo.Binary)
    model.single_block = pyo.Var(every, domain=pyo.Binary)
    model.only_region = pyo.Var(every, domain=pyo.Binary)
    most = max(200, len(region_of))

    def blocks(m: pyo.ConcreteModel, r: int, which: Sequence[bool] | None = None) -> object:
        chosen = [m.count[p] for p, at in enumerate(region_of) if at == r and (which is None or which[p])]
        return sum(chosen) if chosen else 0.0 * m.in_use[r]

    either = [a or b for a, b in zip(exits, entries)]
    model.use = pyo.Constraint(every, rule=lambda m, r: blocks(m, r) <= most * m.in_use[r])
    model.one_first = pyo.Constraint(expr=sum(model.first.values()) == 1)
    model.one_last = pyo.Constraint(expr=sum(model.last.values()) == 1)
    model.first_in_use = pyo.Constraint(every, rule=lambda m, r: m.first[r] <= m.in_use[r])
    model.last_in_use = pyo.Constraint(every, rule=lambda m, r: m.last[r] <= m.in_use[r])
    model.entry = pyo.Constraint(every, rule=lambda m, r: blocks(m, r, entries) >= m.in_use[r] - m.first[r])
    model.exit = pyo.Constraint(every, rule=lambda m, r: blocks(m, r, exits) >= m.in_use[r] - m.last[r])
    model.two_blocks = pyo.Constraint(
        every,
        rule=lambda m, r: blocks(m, r, either) >= 2 * m.in_use[r] - m.first[r] - m.last[r] - m.single_block[r],
    )
    model.single = pyo.Constraint(every, rule=lambda m, r: blocks(m, r) <= most - (most - 1) * m.single_block[r])
    model.alone = pyo.Constraint(every, rule=lambda m, r: m.first[r] + m.last[r] <= 1 + m.only_region[r])
    model.no_other = pyo.Constraint(
        every,
        rule=lambda m, r: sum(m.in_use[q] for q in every if q != r) <= num_regions * (1 - m.only_region[r]),
    )


def _in_order(
    model: pyo.ConcreteModel, stages: Sequence[Stage], regions: Sequence[int], widths: Sequence[float], count: int
) -> list[list[Stage]]:
    """The chosen stages of each region, wide ones at the ends; first region first, last region last."""
    chosen: list[list[tuple[float, Stage]]] = [[] for _ in range(count)]
    for p, stage in enumerate(stages):
        chosen[regions[p]] += [(widths[p], stage)] * round(model.count[p].value)
    order = sorted(
        (r for r in range(count) if chosen[r]),
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
