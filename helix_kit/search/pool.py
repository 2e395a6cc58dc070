"""Placements of many shapes for the served objective: what screening and local search start from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import NamedTuple

from helix_kit.errors import InfeasibleError
from helix_kit.flow import Placement
from helix_kit.placement.groups import Group, groups_of
from helix_kit.placement.planner import plan_problem
from helix_kit.placement.problem import Problem
from helix_kit.placement.watch import Watch
from helix_kit.search import stage_program
from helix_kit.search.candidate import Requirements
from helix_kit.search.evaluate import Evaluator
from helix_kit.search.predictor import Predictor
from helix_kit.search.side_by_side import Proposal, side_by_side
from helix_kit.search.stage_program import CAUTION, MAX_PROGRAMS, Block, Solving
from helix_kit.search.starting import safe_placements

OTHER_CAUTIONS = (1.0, 12.0)
"""Weights of waiting that are tried beside the default, see `stage_program.CAUTION`."""
MAX_UNIFORM = 60
CHOICES_BETWEEN_LOOKS = 500
"""Combinations of uniform stages that are tried between two looks at the clock."""
SAFE = "safe"
"""Family of the placements that a plan must not be worse than."""
SIDE_BY_SIDE = (SAFE, "parallel", "apart")
"""Families in which several parts of the cluster may each hold the whole model. There the flow may use less than the
capacity of slow kinds."""
EVEN_SHARES = (0.6, 0.52, 0.68, 0.76, 0.45, 0.86)
"""With the flow split "any": flows to which stages are filled, as shares of the maximum flow."""
EVEN_PROGRAMS = 8
DEPTH_FACTORS = (1.0, 1.15, 1.35, 1.6, 1.9, 2.3)
"""Caps on depth, as multiples of the fewest nodes that hold the model."""


def propose(problem: Problem, evaluator: Evaluator, known: Sequence[Placement], solving: Solving) -> Iterator[Proposal]:
    """Placements from every source, the most promising sources first, until the time is over.

    The sources are: placements that a plan must not be worse than (`known` ones, baselines, parts alone), uniform
    stages, the stage program, the same for flows that are not balanced (flow split "any"), parts that each hold the
    model, and flow plans of capped depth. The order matters on slow machines, where the time may be over before the
    last source.
    """
    groups, predictor, requirements = groups_of(problem), evaluator.predictor, evaluator.requirements
    yield from (Proposal(SAFE, placement) for placement in safe_placements(problem, known, solving.seed, solving.watch))
    yield from (Proposal("uniform", placement) for placement in uniform(groups, predictor, solving.watch))

    def from_program(
        family: str, caution: float = CAUTION, flow: float | None = None, max_programs: int = MAX_PROGRAMS
    ) -> Iterator[Proposal]:
        chains = stage_program.programs(
            groups, predictor, solving, caution=caution, flow=flow, max_programs=max_programs
        )
        for chain in chains:
            for order in stage_program.orders(chain.blocks):
                yield Proposal(family, stage_program.lay_out(order, groups))

    several_regions = len({g.region for g in groups}) > 1
    if several_regions:
        yield from from_program("program")
    if requirements.flow_split == "any":
        largest = max((evaluator.problem.max_flow(p).tokens_per_s for p in known), default=0.0)
        for share in EVEN_SHARES:
            yield from from_program("even", flow=share * largest, max_programs=EVEN_PROGRAMS)
    yield from side_by_side(groups, predictor, solving)
    if not several_regions:
        yield from from_program("program")
    yield from (Proposal("capped", placement) for placement in depth_capped(problem, requirements, solving))
    for caution in OTHER_CAUTIONS:
        yield from from_program("program", caution)


def depth_capped(problem: Problem, requirements: Requirements, solving: Solving) -> Iterator[Placement]:
    """Placements with the maximum flow among those of at most D stages, for D from few to many."""
    for cap in dict.fromkeys(round(problem.fewest_nodes * factor) for factor in DEPTH_FACTORS):
        if solving.watch.is_over():
            return
        if requirements.max_stages is not None and cap > requirements.max_stages:
            continue
        # A third of what is left, so that one solve does not take the time of all the others.
        time_limit_s = max(1.0, solving.watch.left_s / 3)
        try:
            plan = plan_problem(
                problem, solver=solving.solver, seed=solving.seed, max_stages=cap, time_limit_s=time_limit_s,
                stop=solving.watch.stopped, prove=False, flow_split="any",
                partial_inference=requirements.partial_inference, deterministic=solving.watch.is_counted,
            )  # fmt: skip
            solving.watch.spend(plan.seconds)
        except InfeasibleError:
            continue
        yield plan.placement


class _Uniform(NamedTuple):
    """A number of equal blocks in a row; no block where a group is left out."""

    stages: int
    block: Block | None


def uniform(groups: Sequence[Group], predictor: Predictor, watch: Watch) -> list[Placement]:
    """Placements in which each group forms equal stages of its own, r nodes side by side with k layers each.

    All numbers r and k are tried for up to four groups of one region, and those with the least round trip are returned.
    """
    if len({g.region for g in groups}) > 1 or len(groups) > 4:
        return []
    layers, output = predictor.problem.num_layers, predictor.lengths.output_tokens
    blocks = {(b.length, b.counts): b for b in stage_program.blocks(groups, predictor)}
    options: list[list[_Uniform]] = []
    for index, group in enumerate(groups):
        of_group = [_Uniform(0, None)]
        for replicas in range(1, group.size + 1):
            counts = tuple(replicas if i == index else 0 for i in range(len(groups)))
            stages = group.size // replicas
            lengths = [k for k in range(1, group.max_layers + 1) if (k, counts) in blocks]
            of_group += [_Uniform(stages, blocks[k, counts]) for k in lengths]
        options.append(of_group)
    ranked: list[tuple[float, list[Block]]] = []
    for count, choice in enumerate(product(*options)):
        if count % CHOICES_BETWEEN_LOOKS == 0 and watch.is_over():
            break
        if sum(n * b.length for n, b in choice if b) != layers:
            continue
        used = [(n, b) for n, b in choice if b]
        in_flight = min(b.in_flight for _, b in used)
        rate = in_flight
        # The round trip depends on the rate and the rate on the round trip: three rounds settle both.
        for _ in range(3):
            rate = in_flight / sum(n * b.cost(rate / output, output, CAUTION) for n, b in used)
        ranked.append((rate, [b for n, b in used for _ in range(n)]))
    ranked.sort(key=lambda pair: (-pair[0], [(b.length, b.counts) for b in pair[1]]))
    return [
        stage_program.lay_out(sorted(chosen, key=lambda b: (-b.length, b.counts)), groups)
        for _, chosen in ranked[:MAX_UNIFORM]
    ]


def problem_without(problem: Problem, pins: Mapping[str, tuple[int, int]]) -> Problem:
    """The problem without its pinned nodes, so that proposals do not place them elsewhere.

    Where the other nodes cannot hold the model, the problem itself is returned.
    """
    free = [n for n in problem.cluster.nodes if n.name not in pins]
    if not pins or sum(problem.max_layers(n.name) for n in free) < problem.num_layers:
        return problem
    network = problem.cluster.network
    links = tuple(link for link in network.links if not set(pins) & set(link.ends))
    cluster = problem.cluster.model_copy(
        update={"nodes": tuple(free), "network": network.model_copy(update={"links": links})}
    )
    return replace(problem, cluster=cluster)
