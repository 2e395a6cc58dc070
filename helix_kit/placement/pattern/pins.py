"""Pins: nodes whose layer range is given. The pattern program fills the model around them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from helix_kit.errors import InfeasibleError, InputError
from helix_kit.flow import Placement
from helix_kit.placement.groups import Group, groups_of
from helix_kit.placement.method import Task
from helix_kit.placement.pattern.depth import fewest_steps, flow_within
from helix_kit.placement.pattern.pins_program import PinnedSearch, segments_of
from helix_kit.placement.pattern.search import PRECISION, STEPS
from helix_kit.placement.problem import Problem

SMALL_TARGETS = (0.99, 0.999)
"""Shares below the bound that are tried after those of STEPS: pins may cost nearly all of the flow."""


def check_pins(problem: Problem, pins: Placement) -> Placement:
    """Check that pins name nodes of the cluster and ranges that the nodes can hold.

    Parameters
    ----------
    problem
        The cluster and the model.
    pins
        Node name -> layer range [start, end) that it must hold.

    Returns
    -------
    Placement
        The pins.

    Raises
    ------
    InputError
        When a node is unknown or a range does not lie within the model's layers.
    InfeasibleError
        When a range has more layers than the node holds at most.
    """
    checked: dict[str, tuple[int, int]] = {}
    for name, span in pins.items():
        problem.cluster.node(name)
        start, end = span
        if not 0 <= start < end <= problem.num_layers:
            expected = f"expected 0 <= start < end <= {problem.num_layers}"
            raise InputError(expected, where="pins", field=name, value=f"{start}:{end}")
        limit = problem.max_layers(name)
        if end - start > limit:
            fix = f"pin {name} to at most {limit} layers, such as {start}:{start + limit}" if limit else f"unpin {name}"
            raise InfeasibleError(
                f"pin {name} = {start}:{end} asks for {end - start} layers, but the node holds at most {limit}", fix=fix
            )
        checked[name] = (start, end)
    return checked


def place_around_pins(task: Task, pins: Placement, bound: float) -> Placement:
    """The best placement found that keeps to the pins.

    Parameters
    ----------
    task
        Its watch limits the search. Its options may cap the number of nodes that a request passes.
    pins
        Checked pins, see `check_pins`.
    bound
        Tokens/s that no placement exceeds.

    Raises
    ------
    InfeasibleError
        When the nodes that are not pinned cannot hold the other layers, or no placement that carries flow is found.
    """
    problem, max_depth = task.problem, task.options.max_stages
    segments = segments_of(problem, pins)
    groups = groups_of(problem, [n for n in problem.kind_of if n not in pins])
    unheld = sum(s.length for s in segments if s.pinned_tokens_per_s <= 0)
    held_by_others = sum(g.size * g.max_layers for g in groups)
    if held_by_others < unheld:
        raise InfeasibleError(
            f"the pins leave {unheld} layers to the other nodes, which hold at most {held_by_others}",
            fix="unpin a node, or spread the pinned ranges over more of the model",
        )
    shallow = _Shallow(None, None) if max_depth is None else _shallow_chain(task, pins, groups, max_depth)
    search = PinnedSearch(
        pins, segments, groups, task.watch, task.options.solver, task.options.seed, max_depth=max_depth
    )
    starts = [dict(pins), *([] if shallow.placement is None else [shallow.placement])]
    best, value = _search_targets(task, search, starts, bound)
    if value <= 0 and max_depth is not None:
        raise InfeasibleError(
            f"no plan was found that keeps to these pins and lets a request pass at most {max_depth} nodes",
            fix="unpin a node" if shallow.num_nodes is None else f"allow {shallow.num_nodes} stages",
        )
    if value <= 0:
        raise InfeasibleError(
            "the other nodes cannot fill the gaps that the pins leave", fix="unpin a node, or shift the pinned ranges"
        )
    return best


def _search_targets(
    task: Task, search: PinnedSearch, starts: Sequence[Placement], bound: float
) -> tuple[Placement, float]:
    """The best of `starts` and the placements for targets below `bound`, with its flow in tokens/s."""
    watch, max_depth = task.watch, task.options.max_stages
    best, value = starts[0], 0.0

    def consider(placement: Placement | None) -> float:
        nonlocal best, value
        if placement is None:
            return 0.0
        reached = _flow(task, placement, max_depth)
        watch.report(value=reached, placement=placement)
        if reached > value:
            best, value = placement, reached
        return reached

    for start in starts:
        consider(start)
    low, high = value, bound
    for step in (*STEPS, *SMALL_TARGETS):
        target = bound * (1 - step)
        if target <= low or watch.is_over():
            break
        placement = search.attempt(target)
        reached = consider(placement)
        # Under a cap on depth, the links that are left may carry less than the stages do. A lower target may then give
        # a placement that carries more.
        if placement is not None and (max_depth is None or reached >= target * (1 - 1e-6)):
            low = max(low, reached)
            break
        high = target
    low = max(low, value)
    while high - low > PRECISION * high and value > 0 and not watch.is_over():
        target = (low + high) / 2
        reached = consider(search.attempt(target))
        low, high = (reached, high) if reached >= target * (1 - 1e-6) else (low, target)
    return best, value


def _flow(task: Task, placement: Placement, max_depth: int | None) -> float:
    """Tokens/s of a placement, within the cap on depth if there is one."""
    if max_depth is None:
        return task.max_flow(placement).tokens_per_s
    flow, _ = flow_within(task, placement, max_depth, task.options.flow_split)
    return 0.0 if flow is None else flow.tokens_per_s


class _Shallow(NamedTuple):
    """The pins joined by as few other nodes as possible."""

    placement: Placement | None
    """None when it passes more nodes than the cap on depth; another order of the nodes may still pass fewer."""
    num_nodes: int | None
    """Nodes that a request passes. None when the other nodes cannot join the pins."""


def _shallow_chain(task: Task, pins: Placement, groups: Sequence[Group], max_depth: int) -> _Shallow:
    """The pins joined by the largest other nodes; InfeasibleError when more nodes of the largest size would not do."""
    num_layers, partial_inference = task.problem.num_layers, task.options.partial_inference
    largest_first = sorted((-g.max_layers, n) for g in groups if g.throughput[-1] > 0 for n in g.nodes)
    sizes = [-size for size, _ in largest_first]
    chain = fewest_steps(num_layers, pins, sizes, partial_inference)
    least = fewest_steps(num_layers, pins, sizes[:1] * num_layers, partial_inference)
    if least is None or len(least) > max_depth:
        needed = "cannot cover the model" if least is None else f"make a request pass at least {len(least)} nodes"
        raise InfeasibleError(
            f"at most {max_depth} stages were asked for, but these pins and the largest other node (up to "
            f"{max(sizes, default=0)} layers) {needed}",
            fix="unpin a node" if chain is None else f"allow {len(chain)} stages",
        )
    if chain is None:
        return _Shallow(None, None)
    if len(chain) > max_depth:
        return _Shallow(None, len(chain))
    names = iter(name for _, name in largest_first)
    joined = {next(names): (step.start, step.end) for step in chain if step.pinned is None}
    return _Shallow({**pins, **joined}, len(chain))
