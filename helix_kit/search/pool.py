"""Candidates of many shapes for the served objective: what local search starts from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

from helix_kit.errors import InfeasibleError
from helix_kit.placement import baselines
from helix_kit.placement.groups import Group, groups_of
from helix_kit.placement.planner import plan_problem
from helix_kit.placement.problem import Problem
from helix_kit.placement.watch import Watch
from helix_kit.search import parallel, stage_program
from helix_kit.search.evaluate import Evaluator, Rules
from helix_kit.search.moves import Layout
from helix_kit.search.predictor import Predictor
from helix_kit.search.stage_program import CAUTION, Block

OTHER_CAUTIONS = (1.0, 12.0)
MOST_UNIFORM = 60
SIDE_BY_SIDE = ("parallel", "apart")
"""Families of placements whose parts each hold the model: there the flow may spare slow kinds."""
EVEN_SHARES = (0.6, 0.52, 0.68, 0.76, 0.45, 0.86)
"""Flows, as shares of the most, that stages are filled to where the split is any."""
EVEN_STEPS = 8


def candidates(
    problem: Problem, evaluator: Evaluator, first: Sequence[Layout], watch: Watch, solver: str, seed: int
) -> Iterator[tuple[str, Layout]]:
    """Placements, each with the family that it is of: what is known already, heuristics, uniform stages, parts side by
    side, the stage program, the same for flows that nobody balances, and flow plans of capped depth."""
    groups, predictor, rules = groups_of(problem), evaluator.predictor, evaluator.rules
    yield from (("known", placement) for placement in first)
    makers = (
        baselines.petals_placement, baselines.swarm_placement, baselines.proportional_placement,
        baselines.parallax_placement,
    )  # fmt: skip
    separate = (lambda p: baselines.separate_pipelines(p)[0], lambda p: baselines.separate_pipelines(p, plus=True)[0])
    named = [*(("baseline", make) for make in makers), *(("apart", make) for make in separate)]
    for family, make in named:
        try:
            made = make(problem)
        except InfeasibleError:
            continue
        # Separate pipelines may put more on a node than it holds: such a plan is no start for a search.
        if problem.holds(made):
            yield family, dict(made)
    yield from (("uniform", placement) for placement in uniform(groups, predictor))
    solving: dict[str, Any] = {"solver": solver, "over": watch.is_over, "left": lambda: watch.left_s, "seed": seed}

    def laid(name: str, **options: Any) -> Iterator[tuple[str, Layout]]:
        for _, chosen in stage_program.programs(groups, predictor, **solving, **options):
            for order in stage_program.orders(chosen, groups):
                yield name, stage_program.lay_out(order, groups)

    # What is worth most comes first: on a slow machine the time may be over before the rest.
    several = len({g.region for g in groups}) > 1
    if several:
        yield from laid("program", caution=CAUTION)
    if rules.flow_split == "any":
        most = max((evaluator.problem.max_flow(p).tokens_per_s for p in first), default=0.0)
        for share in EVEN_SHARES:
            yield from laid("even", caution=CAUTION, flow=share * most, steps=EVEN_STEPS)
    yield from parallel.side_by_side(groups, predictor, **solving)
    if not several:
        yield from laid("program", caution=CAUTION)
    yield from (("capped", placement) for placement in depth_capped(problem, groups, rules, watch, solver, seed))
    for caution in OTHER_CAUTIONS:
        yield from laid("program", caution=caution)


def depth_capped(
    problem: Problem, groups: Sequence[Group], rules: Rules, watch: Watch, solver: str, seed: int
) -> Iterator[Layout]:
    """The most flow with at most D stages, for D from few to many."""
    sizes = sorted((g.max_layers for g in groups for _ in g.nodes), reverse=True)
    least = next((n for n in range(1, len(sizes) + 1) if sum(sizes[:n]) >= problem.num_layers), 0)
    caps = [round(least * factor) for factor in (1.0, 1.15, 1.35, 1.6, 1.9, 2.3)]
    for cap in dict.fromkeys(caps):
        if watch.is_over():
            return
        if rules.max_stages is not None and cap > rules.max_stages:
            continue
        # One solve must not take the time of all the others.
        limit = max(1.0, watch.left_s / 3)
        try:
            made = plan_problem(
                problem, solver=solver, seed=seed, max_stages=cap, time_limit_s=limit, stop=watch.stopped, prove=False,
                flow_split="any", partial_inference=rules.partial_inference,
            )  # fmt: skip
        except InfeasibleError:
            continue
        yield made.placement


def uniform(groups: Sequence[Group], predictor: Predictor) -> list[Layout]:
    """Every group in equal stages of its own, r nodes side by side with k layers each: the best by round trip."""
    if len({g.region for g in groups}) > 1 or len(groups) > 4:
        return []
    layers, output = predictor.problem.num_layers, predictor.lengths.output_tokens
    known = {(b.length, b.counts): b for b in stage_program.blocks(groups, predictor)}
    options: list[list[tuple[int, Block | None]]] = []
    for index, group in enumerate(groups):
        mine: list[tuple[int, Block | None]] = [(0, None)]
        for replicas in range(1, group.size + 1):
            counts = tuple(replicas if i == index else 0 for i in range(len(groups)))
            stages = group.size // replicas
            mine += [(stages, known[k, counts]) for k in range(1, group.max_layers + 1) if (k, counts) in known]
        options.append(mine)
    ranked: list[tuple[float, list[Block]]] = []
    for choice in product(*options):
        if sum(n * b.length for n, b in choice if b) != layers:
            continue
        used = [(n, b) for n, b in choice if b]
        in_flight = min(b.in_flight for _, b in used)
        rate = in_flight
        for _ in range(3):
            rate = in_flight / sum(n * b.cost(rate / output, output, caution=CAUTION) for n, b in used)
        ranked.append((rate, [b for n, b in used for _ in range(n)]))
    ranked.sort(key=lambda pair: (-pair[0], [(b.length, b.counts) for b in pair[1]]))
    return [
        stage_program.lay_out(sorted(chosen, key=lambda b: (-b.length, b.counts)), groups)
        for _, chosen in ranked[:MOST_UNIFORM]
    ]
