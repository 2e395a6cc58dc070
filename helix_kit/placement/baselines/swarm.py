"""Method ``swarm`` (SWARM Parallelism, Ryabinin et al. 2023): equal stages, each with about the same throughput."""

from __future__ import annotations

from helix_kit.errors import InfeasibleError
from helix_kit.flow import Placement
from helix_kit.placement.baselines.shared import even_sizes, usable_nodes
from helix_kit.placement.method import Placed, Task
from helix_kit.placement.problem import Problem


def place(task: Task) -> Placed:
    """The method as `helix_kit.placement.methods` lists it."""
    return Placed(swarm_placement(task.problem))


def swarm_placement(problem: Problem) -> Placement:
    """Equal stages that fit the smallest node; each node, fastest first, joins the slowest stage.

    The number of stages is the smallest that divides L and lets each stage fit the smallest node. Where that is more
    than twice the number of stages needed, lengths differ by one layer instead.

    Parameters
    ----------
    problem
        Cluster, model and throughputs.

    Returns
    -------
    Placement
        Node name -> layer range [start, end), for every usable node.

    Raises
    ------
    InfeasibleError
        When there are fewer nodes than stages.

    Examples
    --------
    >>> from helix_kit.cluster import Cluster
    >>> from helix_kit.model import Model
    >>> cluster = Cluster.model_validate({"name": "eight", "nodes": [{"gpu": "L4", "count": 8}]})
    >>> placement = swarm_placement(Problem.of(cluster, Model.preset("llama-30b")))
    >>> sorted(set(placement.values()))
    [(0, 10), (10, 20), (20, 30), (30, 40), (40, 50), (50, 60)]
    """
    nodes, num_layers = usable_nodes(problem), problem.num_layers
    smallest = min(problem.max_layers(n) for n in nodes)
    min_stages = -(-num_layers // smallest)
    num_stages = next(s for s in range(min_stages, num_layers + 1) if num_layers % s == 0)
    if num_stages > 2 * min_stages:
        num_stages = min_stages
    if num_stages > len(nodes):
        kind = next(problem.kind_of[n] for n in nodes if problem.max_layers(n) == smallest)
        raise InfeasibleError(
            f"swarm needs equal stages that fit the smallest node ({kind}: {smallest} layers), so {num_stages} stages "
            f"of {problem.model.name}, but there are only {len(nodes)} nodes",
            fix=f"remove the {kind} nodes, or use method 'pattern'",
        )
    sizes = even_sizes(num_layers, num_stages)
    starts = [sum(sizes[:i]) for i in range(num_stages)]
    throughput = {name: problem.throughput(name, max(sizes)) for name in nodes}
    stage_throughput = [0.0] * num_stages
    placement: dict[str, tuple[int, int]] = {}
    for index in sorted(range(len(nodes)), key=lambda i: (-throughput[nodes[i]], -i)):
        slowest = min(range(num_stages), key=lambda s: (stage_throughput[s], s))
        placement[nodes[index]] = (starts[slowest], starts[slowest] + sizes[slowest])
        stage_throughput[slowest] += throughput[nodes[index]]
    return placement
