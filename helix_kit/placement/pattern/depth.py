"""How many nodes a request passes: the fewest around pins, and flows within a cap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from helix_kit.flow import Edge, Flow, Placement, can_follow, longest_path, short_path_links
from helix_kit.placement.method import FlowSplit, Task

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


def flow_within(
    task: Task, placement: Placement, max_nodes: int, split: FlowSplit
) -> tuple[Flow | None, set[Edge] | None]:
    """A maximum flow whose paths pass at most `max_nodes` nodes, and the links left to it (None: all that fit).

    Where the flow over all links is deeper, only the links of `short_path_links` are left. (None, None) when no path
    along them reaches the last layer.
    """
    flow = task.max_flow(placement, split=split)
    if longest_path(flow, placement) <= max_nodes:
        return flow, None
    links = short_path_links(
        placement, task.problem.num_layers, max_nodes, partial_inference=task.options.partial_inference
    )
    return (None, None) if links is None else (task.max_flow(placement, links, split), links)
