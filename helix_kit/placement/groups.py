"""Interchangeable nodes: same kind, same region. The pattern program and the bounds have a row a group, not a node."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from helix_kit.placement.problem import Problem


@dataclass(frozen=True)
class Group:
    """Nodes that a plan may exchange, with their table T(k) in tokens/s (index k - 1)."""

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
        """K: most layers one of them holds."""
        return len(self.throughput)


def groups_of(
    problem: Problem, nodes: Iterable[str] | None = None, forced: Mapping[str, tuple[int, int]] | None = None
) -> list[Group]:
    """The groups among `nodes` (default: all) that can hold a layer, in order of first appearance.

    `forced` is a placement in which nodes may hold more than their maximum: tables then reach as far as it does.
    """
    held = {problem.kind_of[n]: 0 for n in problem.kind_of}
    for name, (start, end) in (forced or {}).items():
        held[problem.kind_of[name]] = max(held[problem.kind_of[name]], end - start)
    keep = None if nodes is None else set(nodes)
    members: dict[tuple[str, str], list[str]] = {}
    for node in problem.cluster.nodes:
        if (keep is None or node.name in keep) and problem.max_layers(node.name) > 0:
            members.setdefault((node.kind, node.region), []).append(node.name)
    return [
        Group(kind, region, tuple(names), _table(problem, names[0], held[kind]))
        for (kind, region), names in members.items()
    ]


def _table(problem: Problem, node: str, held: int) -> tuple[float, ...]:
    return tuple(problem.throughput(node, k) for k in range(1, max(problem.max_layers(node), held) + 1))
