"""Method ``proportional``: one pipeline through all nodes, layers in proportion to memory, as ``device_map`` splits."""

from __future__ import annotations

from collections.abc import Sequence

from helix_kit.flow import Placement
from helix_kit.placement.baselines.shared import in_a_row, usable_nodes
from helix_kit.placement.method import Placed, Task
from helix_kit.placement.problem import Problem


def place(task: Task) -> Placed:
    """The method as `helix_kit.placement.methods` lists it."""
    return Placed(proportional_placement(task.problem))


def proportional_placement(problem: Problem) -> Placement:
    """One pipeline in cluster order, each node with layers in proportion to what its memory holds.

    Parameters
    ----------
    problem
        Cluster, model and throughputs.

    Returns
    -------
    Placement
        Node name -> layer range [start, end). With more nodes than layers the smallest nodes are left out.

    Examples
    --------
    >>> from helix_kit.cluster import Cluster
    >>> from helix_kit.model import Model
    >>> cluster = Cluster.model_validate({"name": "two", "nodes": [{"gpu": "A100-40G", "count": 3}, {"gpu": "T4"}]})
    >>> proportional_placement(Problem.of(cluster, Model.preset("llama-30b")))["T4-0"]
    (53, 60)
    """
    largest = sorted(usable_nodes(problem), key=lambda n: -problem.max_layers(n))[: problem.num_layers]
    nodes = [n for n in usable_nodes(problem) if n in set(largest)]
    max_layers = [problem.max_layers(n) for n in nodes]
    return in_a_row(nodes, water_fill(problem.num_layers, max_layers, max_layers))


def water_fill(total: int, weights: Sequence[float], limits: Sequence[int]) -> list[int]:
    """Whole numbers that add up to `total`, as nearly in proportion to `weights` as their limits allow.

    The level of the water is found by bisection: number i is min(limit_i, max(1, level x weight_i)). It is then rounded
    down, and the numbers with the largest remainders grow by one until the sum is right.

    Parameters
    ----------
    total
        The sum, from ``len(weights)`` to ``sum(limits)``.
    weights
        Positive numbers.
    limits
        The largest value of each number, at least 1. The smallest value is 1.

    Returns
    -------
    list of int
        One number for each weight.

    Examples
    --------
    >>> water_fill(10, [1, 1, 2], [4, 4, 4])
    [3, 3, 4]
    """
    low, high = 0.0, total / min(w for w in weights if w > 0)
    for _ in range(100):
        level = (low + high) / 2
        filled = sum(min(limit, max(1.0, level * w)) for w, limit in zip(weights, limits))
        low, high = (level, high) if filled < total else (low, level)
    exact = [min(limit, max(1.0, high * w)) for w, limit in zip(weights, limits)]
    sizes = [min(limit, max(1, int(x + 1e-9))) for x, limit in zip(exact, limits)]
    while sum(sizes) != total:
        grow = sum(sizes) < total
        free = [i for i in range(len(sizes)) if (sizes[i] < limits[i] if grow else sizes[i] > 1)]
        chosen = max(free, key=lambda i: ((exact[i] - sizes[i]) if grow else (sizes[i] - exact[i]), -i))
        sizes[chosen] += 1 if grow else -1
    return sizes
