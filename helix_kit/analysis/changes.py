"""Changes of a cluster that one may ask about: one more machine of a kind, wider links, the loss of a machine."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from itertools import combinations_with_replacement

from helix_kit import _files
from helix_kit.catalogue import gpu_and_count, real_gpus
from helix_kit.cluster import UNCONNECTED_GBPS, Cluster, Link, LinkException, Network, Node
from helix_kit.errors import InputError
from helix_kit.placement.plan import Plan

MAX_PAIRS = 6
"""Up to so many pairs of regions are widened one by one when nothing else is asked for."""


@dataclass(frozen=True)
class Change:
    """A changed cluster.

    Examples
    --------
    >>> from helix_kit import Cluster
    >>> smaller = Cluster.model_validate({"name": "five", "nodes": [{"gpu": "L4", "count": 5}]})
    >>> Change("one L4 less", "lose", smaller, usd_per_hour=-0.7).kind
    'lose'
    """

    name: str
    """What was done, as the tables say it."""
    kind: str
    """``add``, ``lose`` or ``widen``."""
    cluster: Cluster
    """The cluster after the change."""
    usd_per_hour: float | None = None
    """Additional cost in dollars per hour; None: not known."""


def changes(
    plan: Plan,
    *,
    add: Iterable[str] | None = None,
    widen: float = 2.0,
    lose: bool = True,
    links: Iterable[tuple[str, str]] | None = None,
) -> list[Change]:
    """The changes that `what_if` tries by default.

    Parameters
    ----------
    plan
        The plan whose cluster is changed.
    add
        GPUs of the catalogue or of the cluster's own, of which one machine is added in each region (``L4x2`` for a
        machine of two); None: the kinds that the cluster has, each in the regions where it has them.
    widen
        Factor on the bandwidth of links: of all between regions, and of each pair of regions alone (up to six pairs);
        of all within the region, when there is one. 1: none.
    lose
        Whether to take away one machine of each kind in each region.
    links
        Pairs of regions whose links are widened, each pair alone; None: as `widen` says.

    Returns
    -------
    list of Change
        Machines added, links widened, machines lost, in this order.

    Raises
    ------
    InputError
        For an unknown GPU or region.

    Examples
    --------
    >>> from helix_kit import Cluster, Model, plan
    >>> cluster = Cluster.model_validate({"name": "six", "nodes": [{"gpu": "L4", "count": 6}]})
    >>> six = plan(cluster, Model.preset("llama-30b"), method="proportional")
    >>> [change.name for change in changes(six)]
    ['one more L4', 'links within the region 2x as wide', 'one L4 less']
    >>> [change.name for change in changes(six, add=["H100-80G"], widen=1, lose=False)]
    ['one more H100-80G']
    """
    cluster = plan.cluster
    places = list({(n.kind, n.region): n for n in cluster.nodes}.values())
    if add is None:
        wanted = places
    else:
        regions = dict.fromkeys(n.region for n in cluster.nodes)
        wanted = [machine(cluster, kind, region) for kind in add for region in regions]
    found = [_added(cluster, node) for node in wanted]
    if widen > 1:
        found += _widened_links(cluster, widen, links)
    return found + ([change for last in places for change in _lost(cluster, last)] if lose else [])


def machine(cluster: Cluster, kind: str, region: str) -> Node:
    """A machine to add: its kind is a GPU, or a GPU and a count, such as ``L4x2``.

    Parameters
    ----------
    cluster
        The cluster that it joins; its own GPUs may be named.
    kind
        GPU, or GPU and number of them.
    region
        Where it stands.

    Returns
    -------
    Node
        Its name is not one of the cluster's.

    Raises
    ------
    InputError
        For an unknown GPU.

    Examples
    --------
    >>> from helix_kit import Cluster
    >>> cluster = Cluster.model_validate({"name": "one", "nodes": [{"gpu": "L4"}]})
    >>> machine(cluster, "L4x2", "local").kind, machine(cluster, "L4", "local").name
    ('L4x2', 'L4-1')
    """
    known = {*real_gpus(), *cluster.gpus}
    machine = gpu_and_count(kind, known)
    if machine is None:
        raise InputError(_files.unknown("GPU", kind, known), field="add", value=kind)
    gpu, count = machine
    return Node(name=_free_name(cluster, kind), gpu=gpu, gpus_per_node=count, region=region)


def _added(cluster: Cluster, like: Node) -> Change:
    node = like.model_copy(update={"name": _free_name(cluster, like.kind)})
    fields = {name: getattr(cluster, name) for name in Cluster.model_fields}
    changed = Cluster(**{**fields, "nodes": (*cluster.nodes, node), "network": _with_rule(cluster)})
    return Change(f"one more {node.kind}{_where(cluster, node)}", "add", changed, cluster.usd_per_hour(node))


def _lost(cluster: Cluster, last: Node) -> list[Change]:
    rest = [n.name for n in cluster.nodes if n is not last]
    if not rest:
        return []
    price = cluster.usd_per_hour(last)
    smaller = cluster.subset(rest, cluster.name)
    saved = None if price is None else 0.0 - price  # 0, not -0, where it was free
    return [Change(f"one {last.kind} less{_where(cluster, last)}", "lose", smaller, saved)]


def _where(cluster: Cluster, node: Node) -> str:
    return f" in {node.region}" if len(cluster.regions) > 1 else ""


def _free_name(cluster: Cluster, kind: str) -> str:
    taken = {n.name for n in cluster.nodes}
    return next(name for i in range(len(taken) + 1) if (name := f"{kind}-{i}") not in taken)


def _with_rule(cluster: Cluster) -> Network:
    """The network, with a rule between regions where only links of nodes were given: the median of those links."""
    network = cluster.network
    pairs = [(a, b) for a in cluster.regions for b in cluster.regions if a != b]
    if network.between_regions is not None or all(cluster.region_link(a, b) is not None for a, b in pairs):
        return network
    nodes = {n.name: n.region for n in cluster.nodes}
    crossing = [x for x in network.links if nodes.get(x.ends[0], "") != nodes.get(x.ends[1], "")]
    middle = Link(
        bandwidth_gbps=_median([link.bandwidth_gbps for link in crossing]),
        latency_ms=_median([link.latency_ms for link in crossing]),
        usd_per_gb=_median([link.usd_per_gb for link in crossing]),
    )
    return network.model_copy(update={"between_regions": middle})


def _median(values: list[float]) -> float:
    ordered = sorted(values)
    return ordered[len(ordered) // 2]


def _widened_links(cluster: Cluster, factor: float, links: Iterable[tuple[str, str]] | None) -> list[Change]:
    if links is not None:
        return [_widened_pair(cluster, pair, factor) for pair in map(partial(_connected, cluster), links)]
    regions = list(dict.fromkeys(n.region for n in cluster.nodes))
    if len(cluster.regions) == 1:
        return [_widened_pair(cluster, (regions[0], regions[0]), factor)]
    pairs = [(a, b) for a, b in combinations_with_replacement(regions, 2) if a != b]
    every = cluster
    for pair in combinations_with_replacement(cluster.regions, 2):
        every = _widened_pair(every, pair, factor).cluster if pair[0] != pair[1] else every
    changed = Change(f"links between regions {factor:g}x as wide", "widen", every)
    alone = [_widened_pair(cluster, pair, factor) for pair in pairs] if 1 < len(pairs) <= MAX_PAIRS else []
    return [changed, *alone]


def _connected(cluster: Cluster, pair: tuple[str, str]) -> tuple[str, str]:
    """The pair of regions; InputError where the cluster's file says that nothing connects them."""
    if all(region in cluster.regions for region in pair):
        usual = cluster.region_link(*pair)
        if usual is not None and usual.bandwidth_gbps <= UNCONNECTED_GBPS:
            expected = "expected two regions that are connected: their link has a bandwidth of 0"
            raise InputError(expected, field="links", value=":".join(pair))
    return pair


def _widened_pair(cluster: Cluster, pair: tuple[str, str], factor: float) -> Change:
    """All links between two regions (or within one) made wider, those of single nodes too."""
    for region in pair:
        if region not in cluster.regions:
            raise InputError(_files.unknown("region", region, cluster.regions), field="links", value=":".join(pair))
    directions = {pair, pair[::-1]}

    def region_of(end: str) -> str:
        return end if end in cluster.regions and end not in {n.name for n in cluster.nodes} else cluster.region_of(end)

    links = [
        x.model_copy(update={"bandwidth_gbps": x.bandwidth_gbps * factor})
        if x.bandwidth_gbps > UNCONNECTED_GBPS and (region_of(x.ends[0]), region_of(x.ends[1])) in directions
        else x
        for x in cluster.network.links
    ]
    given = {direction for x in links for direction in x.directions}
    for source, target in sorted(directions - given):
        usual = cluster.region_link(source, target)
        if usual is not None:
            wider = usual.model_dump() | {"bandwidth_gbps": usual.bandwidth_gbps * factor}
            links.append(LinkException(source=source, target=target, **wider))
    changed = cluster.model_copy(update={"network": cluster.network.model_copy(update={"links": tuple(links)})})
    what = f"{pair[0]} and {pair[1]}"
    if pair[0] == pair[1]:
        what = "the region" if len(cluster.regions) == 1 else pair[0]
    name = f"links {'within' if pair[0] == pair[1] else 'between'} {what} {factor:g}x as wide"
    return Change(name, "widen", changed)
