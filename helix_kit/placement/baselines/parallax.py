"""Method ``parallax`` (Parallax, 2025, phase 1): pipelines of few nodes by a greedy, layers by water-filling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from helix_kit.flow import Placement
from helix_kit.placement.baselines.proportional import water_fill
from helix_kit.placement.baselines.shared import in_a_row, least_served_range, usable_nodes
from helix_kit.placement.method import Placed, Task
from helix_kit.placement.problem import Problem


def place(task: Task) -> Placed:
    """The method as `helix_kit.placement.methods` lists it."""
    return Placed(parallax_placement(task.problem))


def parallax_placement(problem: Problem) -> Placement:
    """Pipelines of few nodes, first within regions, then across them; the other nodes repeat the layers served least.

    In each pipeline layers are split by water-filling over the nodes' speeds.

    Parameters
    ----------
    problem
        Cluster, model and throughputs.

    Returns
    -------
    Placement
        Node name -> layer range [start, end), for every usable node.

    Examples
    --------
    >>> from helix_kit.cluster import Cluster
    >>> from helix_kit.model import Model
    >>> cluster = Cluster.model_validate({"name": "two", "nodes": [{"gpu": "A100-40G", "count": 3}, {"gpu": "T4"}]})
    >>> parallax_placement(Problem.of(cluster, Model.preset("llama-30b")))["A100-40G-0"]
    (0, 18)
    """
    max_layers = {n: problem.max_layers(n) for n in usable_nodes(problem)}
    pipelines: list[list[str]] = []
    left_over: list[str] = []
    for region in problem.cluster.regions:
        nodes = [n for n in max_layers if problem.cluster.region_of(n) == region]
        of_region, rest = _pipelines(problem.num_layers, nodes, max_layers)
        pipelines += of_region
        left_over += rest
    across_regions, left_over = _pipelines(problem.num_layers, left_over, max_layers)
    placement: dict[str, tuple[int, int]] = {}
    for nodes in pipelines + across_regions:
        speeds = [max_layers[n] * problem.throughput(n, max_layers[n]) for n in nodes]
        placement |= in_a_row(nodes, water_fill(problem.num_layers, speeds, [max_layers[n] for n in nodes]))
    served = [0.0] * problem.num_layers
    for n, throughput in problem.node_throughput(placement).items():
        for layer in range(*placement[n]):
            served[layer] += throughput
    for n in left_over:
        placement[n] = least_served_range(served, max_layers[n])
        for layer in range(*placement[n]):
            served[layer] += problem.throughput(n, max_layers[n])
    return placement


def _pipelines(
    num_layers: int, nodes: Sequence[str], max_layers: Mapping[str, int]
) -> tuple[list[list[str]], list[str]]:
    """Pipelines made of `nodes`, and the nodes left over.

    The largest nodes start a pipeline, and the smallest node that completes it ends it.
    """
    free = sorted(nodes, key=lambda n: -max_layers[n])
    pipelines: list[list[str]] = []
    while sum(max_layers[n] for n in free) >= num_layers:
        missing, pipeline = num_layers, []
        while missing > 0:
            completing = [n for n in free if max_layers[n] >= missing]
            chosen = completing[-1] if completing else free[0]
            free.remove(chosen)
            pipeline.append(chosen)
            missing -= max_layers[chosen]
        pipelines.append(pipeline)
    return pipelines, free
