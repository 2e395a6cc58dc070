"""Placements whose parts stand side by side: a kind of machine, or a region, holds the whole model for itself.

Where the fast machines can hold the model alone, slow machines in the same pipeline would only delay their requests.
Side by side each part serves at its own pace.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice, product
from typing import NamedTuple

from helix_kit.flow import Placement
from helix_kit.placement.groups import Group
from helix_kit.search import stage_program
from helix_kit.search.predictor import Predictor
from helix_kit.search.stage_program import Solving

PLANS_PER_PART = 3
ORDERS_PER_PLAN = 2
PROGRAMS_PER_PART = 6


class Proposal(NamedTuple):
    """A placement, and the family of shapes that it belongs to."""

    family: str
    placement: Placement


def side_by_side(groups: Sequence[Group], predictor: Predictor, solving: Solving) -> Iterator[Proposal]:
    """Placements of two families.

    ``parallel``: one part holds the model, and where the rest of the cluster can hold it too, the rest is beside it.
    ``apart``: three or more parts that each hold the model, all beside each other.
    """
    layers = predictor.problem.num_layers
    plans_by_part: dict[frozenset[int], list[Placement]] = {}

    def can_hold_model(part: frozenset[int]) -> bool:
        return sum(groups[i].size * groups[i].max_layers for i in part) >= layers

    def plans(part: frozenset[int]) -> list[Placement]:
        if part not in plans_by_part:
            plans_by_part[part] = _plans_of([groups[i] for i in sorted(part)], predictor, solving)
        return plans_by_part[part]

    everything = frozenset(range(len(groups)))
    kinds = [frozenset(i for i in everything if groups[i].kind == k) for k in dict.fromkeys(g.kind for g in groups)]
    regions = [
        frozenset(i for i in everything if groups[i].region == r) for r in dict.fromkeys(g.region for g in groups)
    ]
    alone = [part for part in dict.fromkeys((*kinds, *regions)) if part != everything and can_hold_model(part)]
    for part in alone:
        rest = everything - part
        if solving.watch.is_over():
            return
        yield from (Proposal("parallel", plan) for plan in plans(part)[:1])
        if can_hold_model(rest):
            for a, b in product(plans(part), plans(rest)):
                yield Proposal("parallel", {**a, **b})
    for separate in ([p for p in kinds if p in alone], [p for p in regions if p in alone]):
        if len(separate) > 2:
            for chosen in zip(*(plans(part) for part in separate), strict=False):
                yield Proposal("apart", {node: span for plan in chosen for node, span in plan.items()})


def _plans_of(groups: Sequence[Group], predictor: Predictor, solving: Solving) -> list[Placement]:
    """The placements of one part that the stage program expects to serve most."""
    chains = sorted(
        stage_program.programs(groups, predictor, solving, max_programs=PROGRAMS_PER_PART),
        key=lambda chain: -chain.tokens_per_s,
    )
    return [
        stage_program.lay_out(order, groups)
        for chain in chains[:PLANS_PER_PART]
        for order in islice(stage_program.orders(chain.blocks), ORDERS_PER_PLAN)
    ]
