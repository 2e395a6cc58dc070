"""Bound B5, regions: what each region carries alone, and what can cross between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from helix_kit.placement.bounds.covers import cover_bound_of, never
from helix_kit.placement.groups import Group
from helix_kit.placement.problem import Problem


def region_bound(
    problem: Problem, groups: Sequence[Group], *, high: float, should_stop: Callable[[], bool] = never
) -> float:
    """B5: the sum of B2 of each region alone and of what can cross between regions.

    Decompose a flow of any placement into paths. The paths within region r are a flow of the same placement restricted
    to r's nodes, so they carry at most what any placement of those nodes does. Each other path takes at least one link
    between regions, so these paths carry at most what `max_crossing` says of all such links together. The bound is good
    where links are thin for the flow that a region makes alone, and useless where many nodes share many links.

    Parameters
    ----------
    problem
        Cluster, model and throughputs.
    groups
        The nodes.
    high
        A known bound in tokens/s.
    should_stop
        Once it returns True, `high` is returned.

    Returns
    -------
    float
        Tokens/s that no placement exceeds; at most `high`.

    Examples
    --------
    >>> from helix_kit.cluster import Cluster
    >>> from helix_kit.model import Model
    >>> from helix_kit.placement.groups import groups_of
    >>> nodes = [{"gpu": "L4", "count": 6, "region": region} for region in ("east", "west")]
    >>> network = {"between_regions": {"bandwidth_gbps": 1e-6}}
    >>> cluster = Cluster.model_validate({"name": "two", "throughput": "published", "nodes": nodes, "network": network})
    >>> problem = Problem.of(cluster, Model.preset("llama-30b"))
    >>> alone = cover_bound_of(tuple(groups_of(problem)[:1]), problem.num_layers)
    >>> round(region_bound(problem, groups_of(problem), high=5000.0) - 2 * alone, 2)
    0.34
    """
    regions = sorted({g.region for g in groups})
    total = max_crossing(problem, groups) if len(regions) > 1 else high
    for region in regions:
        alone = tuple(g for g in groups if g.region == region)
        if total >= high or should_stop():
            return high
        if sum(g.size * g.max_layers for g in alone) >= problem.num_layers:
            total += cover_bound_of(alone, problem.num_layers, should_stop)
    return min(high, total)


def max_crossing(problem: Problem, groups: Sequence[Group]) -> float:
    """Tokens/s that paths which change regions carry at most, in any placement: the least of three sums.

    - Over pairs of nodes of different regions: the faster direction of their link. Only one direction can be used,
      because ends of layer ranges grow along a path.
    - Over nodes as senders: the less of what the node processes at most and what its links to other regions carry.
    - Over nodes as receivers: the same.

    Parameters
    ----------
    problem
        Cluster, model and throughputs.
    groups
        The nodes.

    Returns
    -------
    float
        Tokens/s.

    Examples
    --------
    Twelve pairs of nodes, with links of 10^6 bit/s and tokens of 16386 bytes.

    >>> from helix_kit.cluster import Cluster
    >>> from helix_kit.model import Model
    >>> from helix_kit.placement.groups import groups_of
    >>> nodes = [{"gpu": "A100-40G", "count": 6, "region": "east"}, {"gpu": "T4", "count": 2, "region": "west"}]
    >>> network = {"between_regions": {"bandwidth_gbps": 0.001}}
    >>> cluster = Cluster.model_validate({"name": "two", "throughput": "published", "nodes": nodes, "network": network})
    >>> problem = Problem.of(cluster, Model.preset("llama2-70b"))
    >>> round(max_crossing(problem, groups_of(problem)) / (12 * 0.001e9 / 8 / 16386), 6)
    1.0
    """
    region = {n: g.region for g in groups for n in g.nodes}
    throughput = {n: max(g.throughput) for g in groups for n in g.nodes}
    size = {r: sum(g.size for g in groups if g.region == r) for r in region.values()}
    tokens_per_s = _region_capacities(problem, region)

    def to_all(of: Callable[[str, str], float]) -> dict[str, float]:
        """Node -> the sum of a capacity over all nodes of other regions. Equal capacities are counted together."""
        sums = {}
        for r in size:
            nodes: dict[float, int] = {}
            for other in (o for o in size if o != r):
                capacity = of(r, other)
                nodes[capacity] = nodes.get(capacity, 0) + size[other]
            sums[r] = sum(capacity * count for capacity, count in nodes.items())
        return {n: sums[r] for n, r in region.items()}

    sent = to_all(lambda r, other: tokens_per_s[r, other])
    received = to_all(lambda r, other: tokens_per_s[other, r])
    pairs = sum(to_all(lambda r, other: max(tokens_per_s[r, other], tokens_per_s[other, r])).values()) / 2
    links = problem.cluster.network.links
    for a, b in sorted({tuple(sorted(link.ends)) for link in links if _crosses(link.ends, region)}):
        there, back = problem.link_capacity(a, b), problem.link_capacity(b, a)
        usual = tokens_per_s[region[a], region[b]], tokens_per_s[region[b], region[a]]
        for tokens, instead_of, source, target in ((there, usual[0], a, b), (back, usual[1], b, a)):
            sent[source] += tokens - instead_of
            received[target] += tokens - instead_of
        pairs += max(there, back) - max(usual)
    by_node = (sum(min(throughput[n], capacity[n]) for n in region) for capacity in (sent, received))
    return min(pairs, *by_node)


def fastest_crossing(problem: Problem, groups: Sequence[Group]) -> float:
    """Capacity of the fastest link between two nodes of different regions.

    Parameters
    ----------
    problem
        Cluster, model and throughputs.
    groups
        The nodes, of two regions or more.

    Returns
    -------
    float
        Tokens/s.

    Examples
    --------
    >>> from helix_kit.cluster import Cluster
    >>> from helix_kit.model import Model
    >>> from helix_kit.placement.groups import groups_of
    >>> problem = Problem.of(Cluster.preset("geo24"), Model.preset("llama2-70b"))
    >>> round(fastest_crossing(problem, groups_of(problem)))
    915
    """
    region = {n: g.region for g in groups for n in g.nodes}
    links = problem.cluster.network.links
    exceptions = [link.bytes_per_s / problem.link_bytes_per_token for link in links if _crosses(link.ends, region)]
    return max([*_region_capacities(problem, region).values(), *exceptions])


def _region_capacities(problem: Problem, region: Mapping[str, str]) -> dict[tuple[str, str], float]:
    """Tokens/s of the usual link from each region to each other one, 0 where every link is an exception."""
    regions = dict.fromkeys(region.values())
    links = {(a, b): problem.cluster.region_link(a, b) for a in regions for b in regions if a != b}
    size = problem.link_bytes_per_token
    return {pair: 0.0 if link is None else link.bytes_per_s / size for pair, link in links.items()}


def _crosses(ends: tuple[str, str], region: Mapping[str, str]) -> bool:
    return all(end in region for end in ends) and region[ends[0]] != region[ends[1]]


__all__ = ["fastest_crossing", "max_crossing", "region_bound"]
