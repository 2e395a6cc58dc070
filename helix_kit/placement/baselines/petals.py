"""Method ``petals`` (Petals, Borzunov et al. 2023): each node in turn takes the layers that are served worst."""

from __future__ import annotations

import random

from helix_kit.flow import Placement
from helix_kit.placement.baselines.shared import least_served_range, usable_nodes
from helix_kit.placement.method import Placed, Task
from helix_kit.placement.problem import Problem


def place(task: Task) -> Placed:
    """The method as `helix_kit.placement.methods` lists it."""
    return Placed(petals_placement(task.problem, task.options.seed))


def petals_placement(problem: Problem, seed: int = 0) -> Placement:
    """Each node, in random order, holds as many layers as it can where the layers are served worst so far.

    Parameters
    ----------
    problem
        Cluster, model and throughputs.
    seed
        Seed of the order.

    Returns
    -------
    Placement
        Node name -> layer range [start, end), for every usable node.

    Examples
    --------
    >>> from helix_kit.cluster import Cluster
    >>> from helix_kit.model import Model
    >>> cluster = Cluster.model_validate({"name": "six", "nodes": [{"gpu": "L4", "count": 6}]})
    >>> placement = petals_placement(Problem.of(cluster, Model.preset("llama-30b")))
    >>> sorted(placement.values())[:3]
    [(0, 11), (11, 22), (22, 33)]
    """
    nodes = usable_nodes(problem)
    random.Random(seed).shuffle(nodes)
    served = [0.0] * problem.num_layers
    placement: dict[str, tuple[int, int]] = {}
    for name in nodes:
        size = problem.max_layers(name)
        placement[name] = least_served_range(served, size)
        for layer in range(*placement[name]):
            served[layer] += problem.throughput(name, size)
    return placement
