"""Groups of interchangeable nodes: the same kind in the same region.

The pattern program and the bounds have a row for each group in place of each node.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from helix_kit.placement.problem import Problem


@dataclass(frozen=True)
class Group:
    """Nodes that a plan may exchange for each other.

    Attributes
    ----------
    kind, region
        What they have in common.
    nodes
        Their names.
    throughput
        T(k) of one of them, in tokens/s (index k - 1).

    Examples
    --------
    >>> group = Group("T4", "local", ("T4-0", "T4-1"), (700.0, 400.0))
    >>> group.size, group.max_layers
    (2, 2)
    """

    kind: str
    region: str
    nodes: tuple[str, ...]
    throughput: tuple[float, ...]

    @property
    def size(self) -> int:
        """How many nodes."""
        return len(self.nodes)

    @property
    def max_layers(self) -> int:
        """K: the largest number of layers that one of them holds."""
        return len(self.throughput)


def groups_of(
    problem: Problem, nodes: Iterable[str] | None = None, forced: Mapping[str, tuple[int, int]] | None = None
) -> list[Group]:
    """The groups of nodes that can hold a layer, in order of first appearance.

    Parameters
    ----------
    problem
        Cluster, model and throughputs.
    nodes
        Names of the nodes to group. None: all.
    forced
        A placement in which nodes may hold more layers than their maximum. Tables then reach as far as it does.

    Returns
    -------
    list of Group
        One for each kind and region.

    Examples
    --------
    >>> from helix_kit.cluster import Cluster
    >>> from helix_kit.model import Model
    >>> problem = Problem.of(Cluster.preset("single24"), Model.preset("llama2-70b"))
    >>> [(group.kind, group.size, group.max_layers) for group in groups_of(problem)]
    [('L4', 8, 7), ('T4', 12, 4), ('A100-40G', 4, 12)]
    """
    held = {problem.kind_of[n]: 0 for n in problem.kind_of}
    for name, (start, end) in (forced or {}).items():
        held[problem.kind_of[name]] = max(held[problem.kind_of[name]], end - start)
    keep = None if nodes is None else set(nodes)
    names_of: dict[tuple[str, str], list[str]] = {}
    for node in problem.cluster.nodes:
        if (keep is None or node.name in keep) and problem.max_layers(node.name) > 0:
            names_of.setdefault((node.kind, node.region), []).append(node.name)
    return [
        Group(kind, region, tuple(names), _table(problem, names[0], held[kind]))
        for (kind, region), names in names_of.items()
    ]


def _table(problem: Problem, node: str, held: int) -> tuple[float, ...]:
    return tuple(problem.throughput(node, k) for k in range(1, max(problem.max_layers(node), held) + 1))


__all__ = ["Group", "groups_of"]
