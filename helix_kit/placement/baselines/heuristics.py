"""Placement heuristics to compare with, each from its own paper's description as the Helix artifact fixed it.

Every function maps a problem to {node: (start, end)}; the flow is computed afterwards, like any plan's.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from itertools import pairwise

from helix_kit.errors import InfeasibleError
from helix_kit.flow import Placement
from helix_kit.placement.problem import Problem

MOST_FORCED = 1.75
"""Separate pipelines may put this many times the usual maximum of layers on a node, as the published ones do."""


def usable_nodes(problem: Problem) -> list[str]:
    """Names of the nodes that can hold at least one layer, in cluster order."""
    return [n.name for n in problem.cluster.nodes if problem.max_layers(n.name) > 0]


def even_parts(total: int, parts: int) -> list[int]:
    """`total` as `parts` whole numbers that differ by one at most, the smaller ones first."""
    small, larger = divmod(total, parts)
    return [small] * (parts - larger) + [small + 1] * larger


def swarm(problem: Problem) -> Placement:
    """Swarm: equal stages that fit the smallest GPU; each node, fastest first, joins the slowest stage.

    Fewest stages of equal length; where only very short ones divide L, lengths differ by one layer.
    """
    nodes, layers = usable_nodes(problem), problem.num_layers
    smallest = min(problem.max_layers(n) for n in nodes)
    fewest = -(-layers // smallest)
    stages = next(s for s in range(fewest, layers + 1) if layers % s == 0)
    if stages > 2 * fewest:
        stages = fewest
    if stages > len(nodes):
        kind = next(problem.kind_of[n] for n in nodes if problem.max_layers(n) == smallest)
        raise InfeasibleError(
            f"swarm needs equal stages that fit the smallest node ({kind}: {smallest} layers), so {stages} stages of "
            f"{problem.model.name}, but there are only {len(nodes)} nodes",
            fix=f"remove the {kind} nodes, or use method 'pattern'",
        )
    sizes = even_parts(layers, stages)
    starts = [sum(sizes[:i]) for i in range(stages)]
    speed = {name: problem.throughput(name, max(sizes)) for name in nodes}
    total = [0.0] * stages
    placement: dict[str, tuple[int, int]] = {}
    for index in sorted(range(len(nodes)), key=lambda i: (-speed[nodes[i]], -i)):
        slowest = min(range(stages), key=lambda s: (total[s], s))
        placement[nodes[index]] = (starts[slowest], starts[slowest] + sizes[slowest])
        total[slowest] += speed[nodes[index]]
    return placement


def petals(problem: Problem, seed: int = 0) -> Placement:
    """Petals: each node, in random order, holds all it can where the layers are served worst so far."""
    nodes = usable_nodes(problem)
    random.Random(seed).shuffle(nodes)
    served = [0.0] * problem.num_layers
    placement: dict[str, tuple[int, int]] = {}
    for name in nodes:
        size = problem.max_layers(name)
        starts = range(problem.num_layers - size + 1)
        start = min(starts, key=lambda s: (sorted(served[s : s + size]), s))
        placement[name] = (start, start + size)
        for layer in range(start, start + size):
            served[layer] += problem.throughput(name, size)
    return placement


def separate(problem: Problem, *, plus: bool = False) -> tuple[Placement, set[tuple[str, str]]]:
    """Separate pipelines: one per kind of GPU, layers split evenly; `plus` adds one of the kinds left over (SP+).

    Returns the placement and the links that the pipelines use: requests never change pipelines.
    """
    from helix_kit.cluster import COORDINATOR

    by_kind: dict[str, list[str]] = {}
    for name in usable_nodes(problem):
        by_kind.setdefault(problem.kind_of[name], []).append(name)
    placement: dict[str, tuple[int, int]] = {}
    links: set[tuple[str, str]] = set()
    left: list[str] = []

    def add(names: list[str]) -> bool:
        if len(names) > problem.num_layers:
            names = names[: problem.num_layers]
        sizes = even_parts(problem.num_layers, len(names))
        # The larger parts go to the nodes that hold more.
        order = sorted(range(len(names)), key=lambda i: problem.max_layers(names[i]))
        size_of = {names[i]: size for i, size in zip(order, sizes)}
        if any(size > MOST_FORCED * problem.max_layers(name) for name, size in size_of.items()):
            return False
        at = 0
        for name in names:
            placement[name] = (at, at + size_of[name])
            at += size_of[name]
        path = [COORDINATOR, *names, COORDINATOR]
        links.update(pairwise(path))
        return True

    for names in by_kind.values():
        if not add(names):
            left += names
    if plus and left:
        add(left)
    if not placement:
        raise InfeasibleError(
            f"no kind of GPU in cluster {problem.cluster.name} can hold {problem.model.name} by itself",
            fix="use method 'pattern', which mixes kinds in a pipeline",
        )
    return placement, links


def covers_all(problem: Problem, placement: Placement) -> bool:
    """Whether every layer is held by some node."""
    return _layers(placement.values()) == set(range(problem.num_layers))


def _layers(spans: Iterable[tuple[int, int]]) -> set[int]:
    return {layer for start, end in spans for layer in range(start, end)}
