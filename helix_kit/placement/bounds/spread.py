"""Bound B1, spread: what each node can add to L layers of flow F, its throughput cut down to F."""

from __future__ import annotations

from collections.abc import Sequence

from helix_kit.placement.groups import Group


def spread_bound(groups: Sequence[Group], num_layers: int) -> float:
    """The largest F with sum_i max_k k min(T_i(k), F) >= L F.

    In a placement of flow F every layer is held by nodes whose T add up to F, since they carry it. A node with k layers
    adds min(T(k), F) to each of k such sums, and the L sums need L F together.

    Parameters
    ----------
    groups
        The nodes.
    num_layers
        L, the layers of the model.

    Returns
    -------
    float
        Tokens/s that no placement exceeds, whatever the network.

    Examples
    --------
    The first node may add 1 x 100 or less, the second 2 x 4: three layers carry at most 4 tokens/s.

    >>> fast, slow = Group("fast", "a", ("f",), (100.0,)), Group("slow", "a", ("s",), (4.0, 4.0))
    >>> round(spread_bound([fast, slow], 3), 6)
    4.0
    """

    def is_reached(flow: float) -> bool:
        layers = (g.size * max(k * min(t / flow, 1.0) for k, t in enumerate(g.throughput, 1)) for g in groups)
        return sum(layers) >= num_layers

    low, high = 0.0, sum(g.size * max(k * t for k, t in enumerate(g.throughput, 1)) for g in groups) / num_layers
    if high <= 0 or is_reached(high):
        return high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if is_reached(middle) else (low, middle)
    return high


__all__ = ["spread_bound"]
