"""More placements to compare with: layers in proportion to memory, and Parallax's greedy with water-filling."""

from __future__ import annotations

from collections.abc import Sequence

from helix_kit.flow import Placement
from helix_kit.placement.baselines.heuristics import usable_nodes
from helix_kit.placement.problem import Problem


def proportional(problem: Problem) -> Placement:
    """One pipeline through all nodes, fastest first, layers in proportion to what each node's memory holds.

    What `device_map`-style splitting does; with more nodes than layers the smallest are left out.
    """
    nodes = sorted(usable_nodes(problem), key=lambda n: -problem.max_layers(n))[: problem.num_layers]
    nodes = [n for n in usable_nodes(problem) if n in set(nodes)]
    sizes = water_fill(
        problem.num_layers, [problem.max_layers(n) for n in nodes], [problem.max_layers(n) for n in nodes]
    )
    return _chain(nodes, sizes)


def parallax(problem: Problem) -> Placement:
    """Parallax (2025), phase 1: few-stage pipelines by greedy, layers within each by water-filling over speed.

    Region by region, the largest nodes start a pipeline and the smallest node that completes it ends it; nodes left
    over form pipelines across regions; what is left then joins, as replicas, where layers are served least.
    """
    size = {n: problem.max_layers(n) for n in usable_nodes(problem)}
    pipelines: list[list[str]] = []
    left: list[str] = []
    for region in problem.cluster.regions:
        found, rest = _pipelines(problem, [n for n in size if problem.cluster.region_of(n) == region], size)
        pipelines += found
        left += rest
    found, left = _pipelines(problem, left, size)
    placement: dict[str, tuple[int, int]] = {}
    for pipeline in pipelines + found:
        speed = [size[n] * problem.throughput(n, size[n]) for n in pipeline]
        placement |= _chain(pipeline, water_fill(problem.num_layers, speed, [size[n] for n in pipeline]))
    served = [0.0] * problem.num_layers
    for n, t in problem.node_throughput(placement).items():
        for layer in range(*placement[n]):
            served[layer] += t
    for n in left:
        starts = range(problem.num_layers - size[n] + 1)
        start = min(starts, key=lambda s: (sorted(served[s : s + size[n]]), s))
        placement[n] = (start, start + size[n])
        for layer in range(*placement[n]):
            served[layer] += problem.throughput(n, size[n])
    return placement


def _pipelines(problem: Problem, nodes: Sequence[str], size: dict[str, int]) -> tuple[list[list[str]], list[str]]:
    """As many pipelines as the greedy makes of `nodes`, and the nodes left over."""
    free = sorted(nodes, key=lambda n: -size[n])
    made: list[list[str]] = []
    while sum(size[n] for n in free) >= problem.num_layers:
        need, pipeline = problem.num_layers, []
        while need > 0:
            enough = [n for n in free if size[n] >= need]
            chosen = enough[-1] if enough else free[0]
            free.remove(chosen)
            pipeline.append(chosen)
            need -= size[chosen]
        made.append(pipeline)
    return made, free


def water_fill(total: int, weight: Sequence[float], most: Sequence[int]) -> list[int]:
    """Whole numbers from 1 to `most` that add up to `total`, as nearly in proportion to `weight` as limits allow."""
    low, high = 0.0, total / min(w for w in weight if w > 0)
    for _ in range(100):
        level = (low + high) / 2
        filled = sum(min(m, max(1.0, level * w)) for w, m in zip(weight, most))
        low, high = (level, high) if filled < total else (low, level)
    exact = [min(m, max(1.0, high * w)) for w, m in zip(weight, most)]
    sizes = [min(m, max(1, int(x + 1e-9))) for x, m in zip(exact, most)]
    while sum(sizes) != total:
        up = sum(sizes) < total
        able = [i for i in range(len(sizes)) if (sizes[i] < most[i] if up else sizes[i] > 1)]
        chosen = max(able, key=lambda i: ((exact[i] - sizes[i]) if up else (sizes[i] - exact[i]), -i))
        sizes[chosen] += 1 if up else -1
    return sizes


def _chain(nodes: Sequence[str], sizes: Sequence[int]) -> Placement:
    placement: dict[str, tuple[int, int]] = {}
    at = 0
    for node, size in zip(nodes, sizes):
        placement[node] = (at, at + size)
        at += size
    return placement
