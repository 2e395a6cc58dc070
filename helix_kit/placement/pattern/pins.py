"""Pins: nodes whose layer range is given. The pattern program fills the model around them.

The pins' ends cut the model into segments; within one, the pinned nodes carry a fixed rate, and stages have to carry
only what is missing to F. Every segment has a row for its layers; the nodes that are left are shared by all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyomo.environ as pyo
from numpy.typing import NDArray

from helix_kit.errors import InfeasibleError, InputError
from helix_kit.flow import Placement
from helix_kit.placement.groups import Group, groups_of
from helix_kit.placement.method import Task
from helix_kit.placement.pattern.depth import fewest_steps, flow_within
from helix_kit.placement.pattern.search import KEPT_LOSS, PRECISION, STEPS
from helix_kit.placement.pattern.stages import Stage, StagePricing, uniform_stages
from helix_kit.placement.problem import Problem
from helix_kit.placement.solvers import SolverSettings, solve_model
from helix_kit.placement.solvers.columns import Column, solve_columns
from helix_kit.placement.solvers.parts import (
    Slot,
    assign_nodes,
    chosen_columns,
    define_depth_constraint,
    define_node_supply_constraints,
)

Pins = Mapping[str, tuple[int, int]]
MOST_COLUMNS = 300


def check_pins(problem: Problem, pins: Pins) -> Placement:
    """The pins as a placement; InputError for an unknown node or range, InfeasibleError for more than it holds."""
    checked: dict[str, tuple[int, int]] = {}
    for name, span in pins.items():
        problem.cluster.node(name)
        start, end = span
        if not 0 <= start < end <= problem.num_layers:
            expected = f"expected 0 <= start < end <= {problem.num_layers}"
            raise InputError(expected, where="pins", field=name, value=f"{start}:{end}")
        most = problem.max_layers(name)
        if end - start > most:
            raise InfeasibleError(
                f"pin {name} = {start}:{end} asks for {end - start} layers, but the node holds at most {most}",
                fix=f"pin {name} to at most {most} layers, such as {start}:{start + most}" if most else f"unpin {name}",
            )
        checked[name] = (start, end)
    return checked


@dataclass(frozen=True)
class Segment:
    """Layers [start, end) with the tokens/s that pinned nodes carry there."""

    start: int
    end: int
    pinned: float

    @property
    def length(self) -> int:
        """Number of layers."""
        return self.end - self.start


def segments_of(problem: Problem, pins: Placement) -> list[Segment]:
    """The model cut at the pins' ends."""
    cuts = sorted({0, problem.num_layers, *(cut for span in pins.values() for cut in span)})
    speed = problem.node_throughput(pins)
    found = []
    for start, end in pairwise(cuts):
        carried = sum(speed[n] for n, (s, e) in pins.items() if s <= start and end <= e)
        found.append(Segment(start, end, carried))
    return found


def find(task: Task, pins: Placement, bound: float) -> Placement:
    """The best placement around the pins; InfeasibleError when what is left cannot hold the other layers."""
    problem, watch = task.problem, task.watch
    segments = segments_of(problem, pins)
    groups = groups_of(problem, [n for n in problem.kind_of if n not in pins])
    free = sum(s.length for s in segments if s.pinned <= 0)
    room = sum(g.size * g.max_layers for g in groups)
    if room < free:
        raise InfeasibleError(
            f"the pins leave {free} layers to the other nodes, which hold at most {room}",
            fix="unpin a node, or spread the pinned ranges over more of the model",
        )
    cap = task.options.max_stages
    chain, needed = (None, None) if cap is None else _shallow(task, pins, groups, cap)
    best: Placement = dict(pins)
    value = 0.0

    def consider(layout: Placement) -> float:
        nonlocal best, value
        reached = _flow(task, layout, cap)
        watch.report(value=reached)
        if reached > value:
            best, value = layout, reached
        return reached

    consider(dict(pins))
    if chain is not None:
        consider(chain)
    low, high = value, bound
    targets = [bound * (1 - step) for step in (*STEPS, 0.99, 0.999)]
    for target in targets:
        if target <= low or watch.is_over():
            break
        layout = _attempt(task, pins, segments, groups, target)
        reached = consider(layout) if layout is not None else 0.0
        # Under a cap on depth, the links left may carry less than the stages do: a lower target may still pay.
        if layout is not None and (cap is None or reached >= target * (1 - 1e-6)):
            low = max(low, reached)
            break
        high = target
    low = max(low, value)
    while high - low > PRECISION * high and value > 0 and not watch.is_over():
        target = (low + high) / 2
        layout = _attempt(task, pins, segments, groups, target)
        reached = consider(layout) if layout is not None else 0.0
        low, high = (reached, high) if reached >= target * (1 - 1e-6) else (low, target)
    if value <= 0 and cap is not None:
        raise InfeasibleError(
            f"no plan was found that keeps to these pins and lets a request pass at most {cap} nodes",
            fix="unpin a node" if needed is None else f"allow {needed} stages",
        )
    if value <= 0:
        raise InfeasibleError(
            "the other nodes cannot fill the gaps that the pins leave", fix="unpin a node, or shift the pinned ranges"
        )
    return best


def _flow(task: Task, layout: Placement, cap: int | None) -> float:
    """Tokens/s of a layout, within the cap on depth if there is one."""
    if cap is None:
        return task.max_flow(layout).tokens_per_s
    flow, _ = flow_within(task, layout, cap, task.options.flow_split)
    return 0.0 if flow is None else flow.tokens_per_s


def _shallow(task: Task, pins: Placement, groups: Sequence[Group], cap: int) -> tuple[Placement | None, int | None]:
    """The pins and a chain of as few nodes as possible; InfeasibleError when even nodes without end would be too many.

    With it, the nodes it passes; None for a chain deeper than the cap: another order may still make one that is not.
    """
    layers = task.problem.num_layers
    free = sorted((-g.max_layers, n) for g in groups if g.throughput[-1] > 0 for n in g.nodes)
    sizes = [-size for size, _ in free]
    chain = fewest_steps(layers, pins, sizes, task.options.partial_inference)
    least = fewest_steps(layers, pins, sizes[:1] * layers, task.options.partial_inference)
    if least is None or len(least) > cap:
        needed = "cannot cover the model" if least is None else f"make a request pass at least {len(least)} nodes"
        raise InfeasibleError(
            f"at most {cap} stages were asked for, but these pins and the largest other node (up to "
            f"{max(sizes, default=0)} layers) {needed}",
            fix="unpin a node" if chain is None else f"allow {len(chain)} stages",
        )
    if chain is None or len(chain) > cap:
        return None, None if chain is None else len(chain)
    names = iter(name for _, name in free)
    return {**pins, **{next(names): (start, end) for start, end, pinned in chain if pinned is None}}, len(chain)


def _attempt(
    task: Task, pins: Placement, segments: Sequence[Segment], groups: Sequence[Group], target: float
) -> Placement | None:
    """A placement whose segments all carry `target`, or None."""
    open_segments = [s for s in segments if s.pinned < target * (1 - 1e-9)]
    if not open_segments:
        return dict(pins)
    if not groups:
        return None
    rows = len(groups)
    supply = [float(g.size) for g in groups] + [float(s.length) for s in open_segments]
    # A cap on depth is one more row: hops are a supply like nodes. Each run of layers that the pins carry takes one.
    cap = task.options.max_stages
    runs = sum(
        1 for i, s in enumerate(segments) if s not in open_segments and (i == 0 or segments[i - 1] in open_segments)
    )
    hops = [] if cap is None else [float(cap - runs)]
    if hops and hops[0] < 1:
        return None
    supply += hops
    pool: list[tuple[int, Stage]] = []

    def column(index: int, stage: Stage) -> Column:
        where = [float(stage.length) if i == index else 0.0 for i in range(len(open_segments))]
        return Column(float(stage.length), [*map(float, stage.uses), *where, *([float(stage.depth)] if hops else [])])

    pricings = []
    for index, segment in enumerate(open_segments):
        need = target - segment.pinned
        pool += [(index, s) for s in uniform_stages(groups, need) if s.length <= segment.length]
        pricings.append((index, StagePricing(groups, need, segment.length)))
        if hops:
            # Where hops are dear, stages of single nodes side by side are wanted: one hop each.
            pricings.append((index, StagePricing(groups, need, segment.length, link_cap=0.0)))

    def price(duals: NDArray[np.float64]) -> list[Column]:
        fresh = []
        for index, pricing in pricings:
            fresh += [(index, s) for s in pricing.cheapest(duals[:rows] + 1e-9) if s.length <= pricing.lengths]
        pool.extend(fresh)
        return [column(i, s) for i, s in fresh]

    reach, duals, _ = solve_columns(supply, [column(i, s) for i, s in pool], price, should_stop=task.watch.is_over)
    if reach < sum(s.length for s in open_segments) - 1e-6:
        return None
    hop = float(duals[-1]) if hops else 0.0
    unique = {(i, s.lanes): s for i, s in pool}
    ranked = sorted(
        (
            (s.length * (1 - duals[rows + i]) - float(np.dot(s.uses, duals[:rows])) - hop * s.depth, i, s)
            for (i, _), s in unique.items()
        ),
        key=lambda t: (-t[0] / t[2].length, t[1], t[2].lanes),
    )
    kept = [(i, s) for r, i, s in ranked if r > -KEPT_LOSS * s.length][: MOST_COLUMNS * len(open_segments)]
    settings = SolverSettings(
        task.options.solver, min(4.0, task.watch.left_s), seed=task.options.seed, stop=task.watch.stopped
    )
    chosen = _choose(kept, groups, open_segments, settings, int(hops[0]) if hops else None)
    return None if chosen is None else dict(pins) | assign_nodes(_slots(chosen, open_segments), groups)


def _choose(
    stages: Sequence[tuple[int, Stage]],
    groups: Sequence[Group],
    segments: Sequence[Segment],
    settings: SolverSettings,
    max_depth: int | None = None,
) -> list[tuple[int, Stage]] | None:
    """The stages chosen, with the index of their segment, such that every segment is filled exactly."""
    model = pyo.ConcreteModel("pinned")
    model.count = pyo.Var(range(len(stages)), domain=pyo.NonNegativeIntegers)
    filled = [sum(s.length * model.count[p] for p, (i, s) in enumerate(stages) if i == j) for j in range(len(segments))]
    if any(isinstance(f, int) for f in filled):
        return None
    model.layers = pyo.Objective(expr=sum(filled), sense=pyo.maximize)
    model.fits = pyo.Constraint(range(len(segments)), rule=lambda _, j: filled[j] <= segments[j].length)
    define_node_supply_constraints(model, [s.uses for _, s in stages], [group.size for group in groups])
    if max_depth is not None:
        define_depth_constraint(model, [s.depth for _, s in stages], max_depth)
    solution = solve_model(model, settings)
    if solution.value is None or solution.value < sum(s.length for s in segments) - 1e-6:
        return None
    return chosen_columns(model, stages)


def _slots(chosen: Sequence[tuple[int, Stage]], segments: Sequence[Segment]) -> Iterator[Slot]:
    """Slots of the chosen stages, laid one after another from the start of their segment."""
    at = [s.start for s in segments]
    for index, stage in chosen:
        yield from stage.slots(at[index])
        at[index] += stage.length
