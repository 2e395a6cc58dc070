"""Upper bounds on the flow of any placement: what no plan can exceed, and why.

All but B4 and B5 hold for every network, with and without partial inference, because they look only at layers and
nodes: in a placement of flow F every layer is held by nodes whose T add up to F (they carry it), and a node with
k layers stands in k of these sums.

- ``compute``: sum_i max_k k T_i(k) / L, the published bound.
- ``B1``: what node i adds is at most max_k k min(T_i(k), F), and L layers need L F.
- ``B2``: a layer takes whole nodes, a *cover* of F; a linear program over covers, refuting F when they do not
  reach L layers.
- ``B3``: the same with whole numbers of nodes of each size and whole layers.
- ``B4``: where every link between regions carries less than F and no region alone reaches F, requests cannot all
  walk one chain of single nodes, so some layer is processed by two nodes or more: one cover has two.
- ``B5``: a flow is made of paths. Those that stay in one region are a flow of that region alone, at most its B2;
  every other path takes a link from one region to another, and there are only so many.

>>> from helix_kit.cluster import Cluster
>>> from helix_kit.model import Model
>>> from helix_kit.placement.problem import Problem
>>> problem = Problem.of(Cluster.preset("single24"), Model.preset("llama2-70b"))
>>> round(problem.compute_bound, 1), round(b1(groups_of(problem), problem.num_layers), 1)
(2803.9, 2045.6)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from helix_kit.placement.bounds.covers import Cover, Covers
from helix_kit.placement.groups import Group, groups_of
from helix_kit.placement.problem import Problem
from helix_kit.placement.solvers.columns import Column, solve_columns
from helix_kit.placement.watch import Watch

PRECISION = 1e-5
"""Relative; a bisection ends when value and bound are this close."""
MOST_COVERS = 4000
BONUSES = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0)
"""Multipliers tried for B4's extra row; any of them gives a valid bound."""

MOST_KEPT = 256
_kept: dict[tuple[tuple[Group, ...], int], float] = {}
"""Finished values of `of_nodes`."""


def b1(groups: Sequence[Group], num_layers: int) -> float:
    """The largest F with sum_i max_k k min(T_i(k) / F, 1) >= L, in tokens/s."""

    def reached(flow: float) -> bool:
        shares = (g.size * max(k * min(t / flow, 1.0) for k, t in enumerate(g.throughput, 1)) for g in groups)
        return sum(shares) >= num_layers

    low, high = 0.0, sum(g.size * max(k * t for k, t in enumerate(g.throughput, 1)) for g in groups) / num_layers
    if high <= 0 or reached(high):
        return high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if reached(middle) else (low, middle)
    return high


def b2(
    groups: Sequence[Group],
    num_layers: int,
    *,
    low: float,
    high: float,
    should_stop: Callable[[], bool] = lambda: False,
) -> float:
    """The smallest F that the cover program refutes, searched between `low` (reached) and `high` (a bound)."""
    groups = _by_kind(groups)
    while high - low > PRECISION * high and not should_stop():
        middle = (low + high) / 2
        refuted, _, _ = _cover_program(groups, num_layers, middle, should_stop)
        low, high = (low, middle) if refuted else (middle, high)
    return high


def of_nodes(groups: tuple[Group, ...], num_layers: int, should_stop: Callable[[], bool] = lambda: False) -> float:
    """B2 with nothing known before: what these nodes alone could carry. Kept, for it is asked for again and again.

    Once `over`, it is a wider bound, which is not kept.
    """
    if (groups, num_layers) in _kept:
        return _kept[groups, num_layers]
    found = b2(groups, num_layers, low=0.0, high=b1(groups, num_layers), should_stop=should_stop)
    if not should_stop():
        if len(_kept) >= MOST_KEPT:
            _kept.pop(next(iter(_kept)))
        _kept[groups, num_layers] = found
    return found


def _by_kind(groups: Sequence[Group]) -> list[Group]:
    """Groups of the same kind made one: covers do not ask where a node is, and have fewer rows then."""
    nodes: dict[tuple[str, tuple[float, ...]], tuple[str, ...]] = {}
    for group in groups:
        key = group.kind, group.throughput
        nodes[key] = nodes.get(key, ()) + group.nodes
    return [Group(kind, "", members, table) for (kind, table), members in nodes.items()]


def b4(
    groups: Sequence[Group],
    num_layers: int,
    *,
    low: float,
    high: float,
    widest_crossing: float,
    solver: str = "highs",
    watch: Watch | None = None,
    rounds: int = 30,
    time_limit_s: float = 5.0,
) -> float:
    """`b2` and `b3` with one layer of two or more nodes, where regions force one; else `high`.

    `widest_crossing` is the capacity, in tokens/s, of the fastest link between two nodes of different regions.
    """
    watch = watch or Watch(time_limit_s * rounds)
    regions = {g.region for g in groups}
    if len(regions) < 2:
        return high
    # Below this, a single chain inside one region or over one link might do: nothing is claimed there.
    floor = widest_crossing
    for region in sorted(regions):
        alone = tuple(g for g in groups if g.region == region)
        if sum(g.size * g.max_layers for g in alone) >= num_layers:
            floor = max(floor, of_nodes(alone, num_layers, watch.is_over))
    groups = _by_kind(groups)
    low = max(low, floor) * (1 + PRECISION)
    # Where no node carries so much alone, every cover has two or more: nothing new.
    if low >= high or max(t for g in groups for t in g.throughput) < low:
        return high

    # Where a little less than the bound is not refuted, there is nothing to gain: a bisection would find no more.
    if not _refuted_in_integers(
        groups, num_layers, max(low, high * (1 - 2e-3)), solver, min(time_limit_s, watch.left_s), watch, pairs=True
    ):
        return high
    target = low * (1 + 2 * PRECISION)
    for _ in range(rounds):
        if target >= high or watch.is_over() or high - low <= 1e-4 * high:
            break
        if _refuted_in_integers(groups, num_layers, target, solver, min(time_limit_s, watch.left_s), watch, pairs=True):
            high = target
        else:
            low = target
        target = (low + high) / 2
    return high


def b5(
    problem: Problem, groups: Sequence[Group], *, high: float, should_stop: Callable[[], bool] = lambda: False
) -> float:
    """The sum of B2 of each region and of what can cross between regions: at most `high`, and `high` when told to stop.

    Decompose a flow of any placement into paths. The paths within region r are a flow of the same placement
    restricted to r's nodes, so they carry at most what any placement of those nodes does. Each other path takes at
    least one link between regions, so they carry at most what `most_crossing` says of all such links together. It
    decides where links are thin for the flow that a region makes alone; where many nodes share many links, it does not.
    """
    regions = sorted({g.region for g in groups})
    total = most_crossing(problem, groups) if len(regions) > 1 else high
    for region in regions:
        alone = tuple(g for g in groups if g.region == region)
        if total >= high or should_stop():
            return high
        if sum(g.size * g.max_layers for g in alone) >= problem.num_layers:
            total += of_nodes(alone, problem.num_layers, should_stop)
    return min(high, total)


def most_crossing(problem: Problem, groups: Sequence[Group]) -> float:
    """Tokens/s that paths which change regions can carry at most, in any placement.

    The least of three sums: over pairs of nodes of different regions, the faster direction of their link (a follows b
    or b follows a, not both: ends of layer ranges only grow along a path); over nodes as senders, what one processes at
    most and what its links to other regions carry; and over nodes as receivers, the same.
    """
    region = {n: g.region for g in groups for n in g.nodes}
    speed = {n: max(g.throughput) for g in groups for n in g.nodes}
    size = {r: sum(g.size for g in groups if g.region == r) for r in region.values()}
    network, per_gbps = problem.cluster.network, 1e9 / 8 / problem.model.link_bytes_per_token
    usual = network.between_regions.bandwidth_gbps * per_gbps if network.between_regions else 0.0
    sent = {n: usual * (len(region) - size[r]) for n, r in region.items()}
    received = dict(sent)
    pairs = sum(sent.values()) / 2
    for a, b in sorted({tuple(sorted(link.ends)) for link in network.links if _crosses(link.ends, region)}):
        there, back = problem.link_capacity(a, b), problem.link_capacity(b, a)
        for tokens, source, target in ((there, a, b), (back, b, a)):
            sent[source] += tokens - usual
            received[target] += tokens - usual
        pairs += max(there, back) - usual
    by_node = (sum(min(speed[n], capacity[n]) for n in region) for capacity in (sent, received))
    return min(pairs, *by_node)


def _cover_program(
    groups: Sequence[Group], num_layers: int, target: float, should_stop: Callable[[], bool], bonus: float = 0.0
) -> tuple[bool, NDArray[np.float64], Covers]:
    """(whether covers cannot reach L at `target`, duals scaled so that the cheapest cover costs 1, covers).

    With a `bonus`, a layer covered by two or more nodes counts 1 + bonus, and one such layer must exist: a
    Lagrangian form of B4's extra row, which costs the bonus once.
    """
    covers = Covers(groups, target)
    supply = np.array([g.size for g in groups], float)
    state: dict[str, NDArray[np.float64]] = {}
    best = [np.inf]

    def price(duals: NDArray[np.float64]) -> list[Column]:
        cost, cover = covers.cheapest(duals)
        found = [Column(1.0, _uses(cover, len(groups)))]
        if bonus:
            pair_cost, pair = covers.cheapest(duals, at_least=2)
            cost = min(cost, pair_cost / (1 + bonus))
            found.append(Column(1.0 + bonus, _uses(pair, len(groups))))
        # Any prices bound the number of layers: supply . u / (cheapest cover). Keep the best (Farley).
        if cost > 0 and float(supply @ duals) / cost - bonus < best[0]:
            best[0], state["duals"] = float(supply @ duals) / cost - bonus, duals / cost
        return [] if best[0] < num_layers - 1e-7 else found

    start = [Column(1.0, _uses(cover, len(groups))) for cover in _single_group_covers(groups, target)]
    enough = np.inf if bonus else num_layers * (1 + 1e-6)
    solve_columns(list(supply), start, price, enough=enough, should_stop=should_stop)
    if "duals" not in state:
        price(np.ones(len(groups)))
    return best[0] < num_layers - 1e-7, state["duals"], covers


def _uses(cover: Cover, rows: int) -> list[float]:
    uses = [0.0] * rows
    for (g, k), count in cover.items():
        uses[g] += count / k
    return uses


def _single_group_covers(groups: Sequence[Group], target: float) -> list[Cover]:
    return [
        {(index, k): int(np.ceil(target / t - 1e-12))}
        for index, group in enumerate(groups)
        for k, t in enumerate(group.throughput, 1)
        if t > 0
    ]


def b3(
    groups: Sequence[Group],
    num_layers: int,
    *,
    low: float,
    high: float,
    solver: str = "highs",
    watch: Watch | None = None,
    rounds: int = 6,
    time_limit_s: float = 10.0,
) -> float:
    """Like `b2` with whole nodes and layers: tries to refute what lies just above `low`, then bisects.

    `time_limit_s` seconds for each of at most `rounds` small integer programs.
    """
    watch = watch or Watch(time_limit_s * rounds)
    groups = _by_kind(groups)
    target = low * (1 + 2 * PRECISION)
    for _ in range(rounds):
        if target >= high or watch.is_over():
            break
        if _refuted_in_integers(groups, num_layers, target, solver, min(time_limit_s, watch.left_s), watch):
            high = target
        else:
            low = target
        if high - low <= 2 * PRECISION * high:
            break
        target = (low + high) / 2
    return high


def _refuted_in_integers(
    groups: Sequence[Group],
    num_layers: int,
    target: float,
    solver: str,
    time_limit_s: float,
    watch: Watch,
    pairs: bool = False,
) -> bool:
    refuted, duals, covers = _cover_program(groups, num_layers, target, watch.is_over)
    if refuted:
        return True
    if pairs and any(_cover_program(groups, num_layers, target, watch.is_over, bonus)[0] for bonus in BONUSES):
        return True
    # Covers cost 1 or more and all that is used costs V = supply . u at most, so one that stands in a solution
    # with L layers costs at most 1 + V - L.
    slack = float(np.array([g.size for g in groups]) @ duals) - num_layers
    # Listing covers may take as long as the program over them: hundreds of machines have far too many.
    listing = Watch(time_limit_s, stop=watch.stopped)
    columns = covers.within(duals, 1 + slack + 1e-9, MOST_COVERS, listing.is_over)
    if columns is None:
        return False
    if not columns:
        return True
    from helix_kit.placement.bounds.cover_program import most_layers

    if pairs:
        columns += _with_a_second_node(columns, covers, duals, 1 + slack + 1e-9)
    solution = most_layers(groups, num_layers, columns, solver, time_limit_s, watch.stopped, need_pair=pairs)
    return solution.infeasible or (solution.bound is not None and solution.bound < num_layers - 1e-6)


def _with_a_second_node(
    columns: Sequence[Cover], covers: Covers, duals: NDArray[np.float64], limit: float
) -> list[Cover]:
    """Single-node covers with any other node beside them, as far as they cost no more than `limit`."""
    costs = {(g, k): float(duals[g]) / k for g, k, _ in covers.items}
    found = []
    for cover in columns:
        if sum(cover.values()) == 1:
            (item,) = cover
            for other, cost in costs.items():
                if costs[item] + cost <= limit:
                    found.append({item: 2} if other == item else {item: 1, other: 1})
    return found


def widest_crossing(problem: Problem, groups: Sequence[Group]) -> float:
    """Tokens/s of the fastest link between two nodes of different regions."""
    region = {n: g.region for g in groups for n in g.nodes}
    network = problem.cluster.network
    exceptions = [link.bandwidth_gbps for link in network.links if _crosses(link.ends, region)]
    usual = [network.between_regions.bandwidth_gbps] if network.between_regions else []
    return max([*usual, *exceptions]) * 1e9 / 8 / problem.model.link_bytes_per_token


def _crosses(ends: tuple[str, str], region: Mapping[str, str]) -> bool:
    return all(end in region for end in ends) and region[ends[0]] != region[ends[1]]


__all__ = ["b1", "b2", "b3", "b4", "b5", "groups_of", "most_crossing", "widest_crossing"]
