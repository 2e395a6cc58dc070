"""Plans of parts that stand side by side: each kind of machine, or each region, holds the whole model for itself.

Where fast machines hold the model alone, slow ones in series only delay them: side by side each serves at its own pace.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice, product

from helix_kit.placement.groups import Group
from helix_kit.search import stage_program
from helix_kit.search.moves import Layout
from helix_kit.search.predictor import Predictor
from helix_kit.search.stage_program import CAUTION

PLANS_A_PART = 3
GRID = 6


def side_by_side(
    groups: Sequence[Group],
    predictor: Predictor,
    *,
    solver: str,
    over: Callable[[], bool],
    left: Callable[[], float],
    seed: int,
) -> Iterator[tuple[str, Layout]]:
    """``parallel``: a part that holds the model alone, with the rest beside it; ``apart``: all such parts beside each
    other."""
    layers = predictor.problem.num_layers
    made: dict[frozenset[int], list[Layout]] = {}

    def able(part: frozenset[int]) -> bool:
        return sum(groups[i].size * groups[i].max_layers for i in part) >= layers

    def plans(part: frozenset[int]) -> list[Layout]:
        if part not in made:
            mine = [groups[i] for i in sorted(part)]
            ranked = sorted(
                stage_program.programs(
                    mine, predictor, solver=solver, over=over, left=left, steps=GRID, seed=seed, caution=CAUTION
                ),
                key=lambda pair: -pair[0],
            )  # fmt: skip
            made[part] = [
                stage_program.lay_out(order, mine)
                for _, chosen in ranked[:PLANS_A_PART]
                for order in islice(stage_program.orders(chosen, mine), 2)
            ]
        return made[part]

    everything = frozenset(range(len(groups)))
    kinds = [frozenset(i for i in everything if groups[i].kind == k) for k in dict.fromkeys(g.kind for g in groups)]
    regions = [
        frozenset(i for i in everything if groups[i].region == r) for r in dict.fromkeys(g.region for g in groups)
    ]
    alone = [part for part in dict.fromkeys((*kinds, *regions)) if part != everything and able(part)]
    for part in alone:
        rest = everything - part
        if over():
            return
        yield from (("parallel", plan) for plan in plans(part)[:1])
        if able(rest):
            for a, b in product(plans(part), plans(rest)):
                yield "parallel", {**a, **b}
    for parts in ([p for p in kinds if p in alone], [p for p in regions if p in alone]):
        if len(parts) > 2:
            for chosen in zip(*(plans(part) for part in parts), strict=False):
                yield "apart", {node: span for plan in chosen for node, span in plan.items()}
