"""Minimal change: a better plan, where every GB of weights that a node has to load anew has its price.

Maximises flow - price x GB moved. A new optimum is turned until it lies as near to the old plan as it can (nodes of a
group are interchangeable), nodes go back to their old ranges where that costs less flow than it saves, and the old
plan is improved node by node; the best of these counts.
"""

from __future__ import annotations

from collections.abc import Mapping

from helix_kit.flow import Placement
from helix_kit.placement.groups import Group
from helix_kit.placement.method import Task
from helix_kit.placement.problem import Problem

SWEEPS = 4


def moved_gb(problem: Problem, old: Mapping[str, tuple[int, int]], new: Mapping[str, tuple[int, int]]) -> float:
    """GB of weights that nodes hold in `new` and not in `old`."""
    layers = sum(
        len(set(range(*span)) - set(range(*old[name])) if name in old else range(*span)) for name, span in new.items()
    )
    return layers * problem.model.layer_gb


def find(task: Task, old: Placement, price: float, fresh: Placement) -> Placement:
    """The plan with the best flow - price x GB moved, from `old` and a new optimum `fresh`."""
    problem = task.problem

    def net(layout: Placement) -> float:
        flow = task.max_flow(layout).tokens_per_s
        return flow - price * moved_gb(problem, old, layout) if flow > 0 else float("-inf")

    def climb(layout: Placement, spans: list[tuple[int, int]]) -> Placement:
        """Give nodes, one by one, their old range, none, or one of `spans`, while it pays."""
        value = net(layout)
        for _ in range(SWEEPS):
            before = value
            for name in [n.name for n in problem.cluster.nodes]:
                for span in dict.fromkeys([old.get(name), None, *spans]):
                    if task.watch.is_over():
                        return layout
                    if span == layout.get(name) or (span and span[1] - span[0] > problem.max_layers(name)):
                        continue
                    rest = {n: s for n, s in layout.items() if n != name}
                    trial = rest if span is None else {**rest, name: span}
                    # What layers are held for is a bound on the flow, far quicker than the flow itself.
                    if _coverage(problem, trial) - price * moved_gb(problem, old, trial) <= value + 1e-6:
                        continue
                    reached = net(trial)
                    if reached > value + 1e-6:
                        layout, value = trial, reached
            if value <= before:
                break
        return layout

    near = align(fresh, old, task.groups)
    results = [climb(near, []), climb(dict(old), sorted(set(old.values())))] if old else [near]
    return max([*results, near, dict(old)], key=net)


def align(new: Placement, old: Placement, groups: list[Group]) -> Placement:
    """`new` with the ranges of each group handed to its nodes so that they overlap most with `old` (greedy)."""
    aligned: dict[str, tuple[int, int]] = {}
    for group in groups:
        spans = [new[n] for n in group.nodes if n in new]
        pairs = sorted(
            (
                (-_overlap(span, old.get(node)), index, place)
                for index, span in enumerate(spans)
                for place, node in enumerate(group.nodes)
            ),
        )
        taken_spans: set[int] = set()
        taken_nodes: set[int] = set()
        for _, index, place in pairs:
            if index not in taken_spans and place not in taken_nodes:
                taken_spans.add(index)
                taken_nodes.add(place)
                aligned[group.nodes[place]] = spans[index]
    return aligned


def _overlap(a: tuple[int, int], b: tuple[int, int] | None) -> int:
    return 0 if b is None else max(0, min(a[1], b[1]) - max(a[0], b[0]))


def _coverage(problem: Problem, placement: Placement) -> float:
    held = [0.0] * problem.num_layers
    for name, (start, end) in placement.items():
        speed = problem.throughput(name, end - start)
        for layer in range(start, end):
            held[layer] += speed
    return min(held)
