"""How many nodes a request passes: the fewest around pins, the most that a flow lets happen, and a cap on that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from helix_kit.cluster import COORDINATOR
from helix_kit.flow import Edge, Flow, Placement, can_follow
from helix_kit.placement.problem import Problem

Step = tuple[int, int, str | None]
"""Layers [start, end) at a pinned node, or at the next largest of the others (None)."""


def fewest_steps(
    num_layers: int, pins: Mapping[str, tuple[int, int]], sizes: Sequence[int], partial_inference: bool
) -> list[Step] | None:
    """A shortest way through all layers, breadth first; None when there is none.

    `sizes` are the layers that the nodes beside the pins hold at most, taken in the order given. Of equal ways the
    one that goes furthest at each step is met first.
    """
    reached: dict[tuple[int, int], tuple[tuple[int, int], Step] | None] = {(0, 0): None}
    front = [(0, 0)]
    while front:
        following = []
        for at, used in front:
            steps: list[Step] = [
                (at, end, name)
                for name, (start, end) in pins.items()
                if can_follow(at, (start, end), partial_inference)
            ]
            if used < len(sizes):
                steps += [(at, min(at + k, num_layers), None) for k in range(sizes[used], 0, -1)]
            for step in steps:
                state = (step[1], used + (step[2] is None))
                if state in reached:
                    continue
                reached[state] = ((at, used), step)
                if step[1] == num_layers:
                    return _trace(reached, state)
                following.append(state)
        front = following
    return None


def _trace(
    reached: Mapping[tuple[int, int], tuple[tuple[int, int], Step] | None], state: tuple[int, int]
) -> list[Step]:
    way: list[Step] = []
    while (came := reached[state]) is not None:
        state, step = came
        way.append(step)
    return way[::-1]


def deepest(flow: Flow, placement: Mapping[str, tuple[int, int]]) -> int:
    """Nodes on the longest path along links that carry flow."""
    passed = dict.fromkeys(placement, 1)
    # Layer ranges only move forward, so ends in increasing order are a topological order.
    for node in sorted(placement, key=lambda n: (placement[n][1], n)):
        for (source, target), amount in flow.edges.items():
            if source == node and target in passed and amount > 0:
                passed[target] = max(passed[target], passed[node] + 1)
    used = {target for (_, target), amount in flow.edges.items() if amount > 0 and target != COORDINATOR}
    return max((passed[n] for n in used), default=0)


def links_within(
    problem: Problem,
    placement: Placement,
    most: int,
    *,
    partial_inference: bool,
    split: Literal["balanced", "any"],
) -> tuple[Flow | None, set[Edge] | None]:
    """A maximum flow that passes at most `most` nodes, and the links left to it (None: all that fit).

    Where the flow over all links is deeper, only links from the nodes d hops from the coordinator to those d + 1
    hops from it are left, up to `most`: every path along them is short enough. (None, links) when none is.
    """
    flow = problem.max_flow(placement, partial_inference=partial_inference, split=split)
    if deepest(flow, placement) <= most:
        return flow, None
    hops = {name: 1 for name, (start, _) in placement.items() if start == 0}
    links = {(COORDINATOR, name) for name in hops}
    for depth in range(1, most + 1):
        for name in [n for n, h in hops.items() if h == depth]:
            end = placement[name][1]
            if end == problem.num_layers:
                links.add((name, COORDINATOR))
            elif depth < most:
                for other, span in placement.items():
                    if can_follow(end, span, partial_inference) and hops.setdefault(other, depth + 1) == depth + 1:
                        links.add((name, other))
    if not any(target == COORDINATOR for _, target in links):
        return None, links
    return problem.max_flow(placement, partial_inference=partial_inference, links=links, split=split), links
