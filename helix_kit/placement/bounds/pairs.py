"""Bound B4, pairs: where regions force it, some layer is processed by two nodes or more."""

from __future__ import annotations

from collections.abc import Sequence

from helix_kit.placement.bounds.covers import (
    PRECISION,
    ProofEffort,
    cover_bound_of,
    is_refuted,
    lowest_refuted,
    merge_kinds,
)
from helix_kit.placement.groups import Group

MAX_PROGRAMS = 30
"""Integer programs solved at most."""


def pair_bound(
    groups: Sequence[Group],
    num_layers: int,
    *,
    low: float,
    high: float,
    fastest_crossing: float,
    effort: ProofEffort,
) -> float:
    """B4: B2 and B3 with one layer that is processed by two or more nodes.

    If each layer is processed by a single node, requests walk one chain of single nodes. Such a chain lies within one
    region, and then carries no more than the region alone does, or it takes a link between regions, and then carries no
    more than the fastest of them. Above both values, some layer is processed by two nodes or more.

    Parameters
    ----------
    groups
        The nodes.
    num_layers
        L, the layers of the model.
    low, high
        A flow known to be reached and a known bound, in tokens/s. The search is between them.
    fastest_crossing
        Capacity, in tokens/s, of the fastest link between two nodes of different regions.
    effort
        Solver, clock and time limit of each program.

    Returns
    -------
    float
        Tokens/s that no placement exceeds; `high` where the regions force no pair.

    Examples
    --------
    Two nodes of two layers each serve four layers in a chain, over a link of 1 token/s.

    >>> from helix_kit.placement.watch import Watch
    >>> groups = [Group("a", region, (f"a-{region}",), (10.0, 9.0)) for region in ("east", "west")]
    >>> round(pair_bound(groups, 4, low=0.0, high=9.0, fastest_crossing=1.0, effort=ProofEffort(Watch(10.0))), 2)
    1.0
    """
    regions = {g.region for g in groups}
    if len(regions) < 2:
        return high
    watch = effort.watch
    floor = fastest_crossing
    for region in sorted(regions):
        alone = tuple(g for g in groups if g.region == region)
        if sum(g.size * g.max_layers for g in alone) >= num_layers:
            floor = max(floor, cover_bound_of(alone, num_layers, watch.is_over))
    groups = merge_kinds(groups)
    low = max(low, floor) * (1 + PRECISION)
    # Where no node carries so much alone, every cover has two nodes anyway.
    if low >= high or max(t for g in groups for t in g.throughput) < low:
        return high

    # Where a little less than the bound is not refuted, a bisection would gain less than that.
    if not is_refuted(groups, num_layers, max(low, high * (1 - 2e-3)), effort, pair_needed=True):
        return high
    return lowest_refuted(
        lambda target: is_refuted(groups, num_layers, target, effort, pair_needed=True),
        low=low,
        high=high,
        first=low * (1 + 2 * PRECISION),
        gap=1e-4,
        max_questions=MAX_PROGRAMS,
        should_stop=watch.is_over,
    )


__all__ = ["pair_bound"]
