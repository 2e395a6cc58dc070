"""How many nodes a request passes: the fewest around pins, and flows within a cap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from helix_kit.flow import Edge, Flow, Placement, can_follow, longest_path, short_path_links
from helix_kit.placement.method import FlowSplit, Task


class Step(NamedTuple):
    """Layers [start, end) that one node runs for a request."""

    start: int
    end: int
    pinned: str | None
    """Name of the pinned node; None for the next of the other nodes."""


def fewest_steps(num_layers: int, pins: Placement, sizes: Sequence[int], partial_inference: bool) -> list[Step] | None:
    """A way through all layers that passes the fewest nodes, by breadth-first search; None when there is none.

    `sizes` are the layers that the nodes beside the pins hold at most. They are taken in the order given. Among ways of
    equally many nodes, the one whose steps reach furthest is found first.

    Examples
    --------
    >>> for step in fewest_steps(10, {"a": (4, 8)}, [5, 2], partial_inference=True):
    ...     step
    Step(start=0, end=5, pinned=None)
    Step(start=5, end=8, pinned='a')
    Step(start=8, end=10, pinned=None)
    """
    # A state is (layers done, number of other nodes used); each has the state and step that reached it first.
    reached: dict[tuple[int, int], tuple[tuple[int, int], Step] | None] = {(0, 0): None}
    front = [(0, 0)]
    while front:
        following = []
        for at, used in front:
            steps = [
                Step(at, end, name)
                for name, (start, end) in pins.items()
                if can_follow(at, (start, end), partial_inference)
            ]
            if used < len(sizes):
                steps += [Step(at, min(at + k, num_layers), None) for k in range(sizes[used], 0, -1)]
            for step in steps:
                state = (step.end, used + (step.pinned is None))
                if state in reached:
                    continue
                reached[state] = ((at, used), step)
                if step.end == num_layers:
                    return _trace(reached, state)
                following.append(state)
        front = following
    return None


def _trace(
    reached: Mapping[tuple[int, int], tuple[tuple[int, int], Step] | None], state: tuple[int, int]
) -> list[Step]:
    """The steps from the first layer to `state`."""
    backwards: list[Step] = []
    while (before := reached[state]) is not None:
        state, step = before
        backwards.append(step)
    return backwards[::-1]


def flow_within(
    task: Task, placement: Placement, max_nodes: int, split: FlowSplit
) -> tuple[Flow | None, set[Edge] | None]:
    """A maximum flow whose paths pass at most `max_nodes` nodes, and the links left to it (None: all links).

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
