"""What several baselines share: usable nodes, even splits, nodes in a row, and the layers served least."""

from __future__ import annotations

from collections.abc import Sequence

from helix_kit.flow import Placement
from helix_kit.placement.problem import Problem


def usable_nodes(problem: Problem) -> list[str]:
    """Names of the nodes that can hold at least one layer, in cluster order."""
    return [n.name for n in problem.cluster.nodes if problem.max_layers(n.name) > 0]


def even_sizes(total: int, count: int) -> list[int]:
    """`count` whole numbers that add up to `total` and differ by one at most, the smaller ones first."""
    small, num_larger = divmod(total, count)
    return [small] * (count - num_larger) + [small + 1] * num_larger


def in_a_row(nodes: Sequence[str], sizes: Sequence[int]) -> Placement:
    """Nodes one after another from layer 0 on, `sizes` layers each."""
    placement: dict[str, tuple[int, int]] = {}
    start = 0
    for node, size in zip(nodes, sizes):
        placement[node] = (start, start + size)
        start += size
    return placement


def least_served_range(served_tokens_per_s: Sequence[float], size: int) -> tuple[int, int]:
    """The range of `size` layers that is served worst: its least served layers count first, then the first range."""
    starts = range(len(served_tokens_per_s) - size + 1)
    start = min(starts, key=lambda s: (sorted(served_tokens_per_s[s : s + size]), s))
    return start, start + size
