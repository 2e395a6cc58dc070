"""Links between machines: their quality, the rules for all of them, and those that differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import field_validator, model_validator

from helix_kit import _files
from helix_kit._summary import Summarised, number
from helix_kit.cluster.fields import COORDINATOR, UNCONNECTED_GBPS, Bandwidth, Frozen, Latency, NonNegative


def bytes_per_s(gbps: float) -> float:
    """Bytes/s of a bandwidth in Gbit/s (10^9 bit/s).

    Parameters
    ----------
    gbps
        Bandwidth in Gbit/s.

    Returns
    -------
    float
        Bytes/s: 10^9 bit/s are 125 million bytes/s.

    Examples
    --------
    >>> bytes_per_s(10)
    1250000000.0
    """
    return gbps * 1e9 / 8


class Link(Frozen):
    """Quality of a connection in one direction.

    Examples
    --------
    >>> Link(bandwidth_gbps=8, latency_ms=50).bytes_per_s
    1000000000.0
    """

    bandwidth_gbps: Bandwidth
    """10^9 bit/s."""
    latency_ms: Latency = 0.0
    """One way."""
    usd_per_gb: NonNegative = 0.0
    """Price in dollars of each GB (10^9 bytes) that is sent over it, such as a cloud's egress."""

    @property
    def bytes_per_s(self) -> float:
        """Bandwidth in bytes/s."""
        return bytes_per_s(self.bandwidth_gbps)

    @property
    def latency_s(self) -> float:
        """One-way latency in seconds."""
        return self.latency_ms / 1e3


class LinkException(Link):
    """Links that differ from the rule for all: that between two nodes, or all links between two regions.

    Give `between` for both directions, or `source` and `target` for one. A region named twice stands for the links
    within it. A `bandwidth_gbps` of 0 says that the two ends are not connected.

    Examples
    --------
    >>> LinkException(between=("L4-0", "L4-1"), bandwidth_gbps=0.2).ends
    ('L4-0', 'L4-1')
    """

    between: tuple[str, str] | None = None
    """Two node names (or ``coordinator``), or two regions."""
    source: str | None = None
    """Node name (or ``coordinator``) or region that sends."""
    target: str | None = None
    """Node name (or ``coordinator``) or region that receives."""

    @model_validator(mode="before")
    @classmethod
    def _no_link(cls, data: Any) -> Any:
        if isinstance(data, dict) and type(data.get("bandwidth_gbps")) in (int, float) and data["bandwidth_gbps"] == 0:
            return {**data, "bandwidth_gbps": UNCONNECTED_GBPS}
        return data

    @field_validator("between", mode="before")
    @classmethod
    def _two_ends(cls, ends: Any) -> Any:
        if ends is not None and not (isinstance(ends, list | tuple) and len(ends) == 2):
            raise ValueError("expected two ends, such as [a, b]")
        return ends

    @model_validator(mode="after")
    def _one_form(self) -> LinkException:
        both_ways = self.between is not None
        one_way = self.source is not None and self.target is not None
        if both_ways == one_way or (both_ways and (self.source or self.target)):
            raise ValueError("expected either `between: [a, b]`, or both `source` and `target`")
        return self

    @property
    def ends(self) -> tuple[str, str]:
        """The two endpoints, in the order given."""
        return self.between or (self.source or "", self.target or "")

    @property
    def directions(self) -> tuple[tuple[str, str], ...]:
        """The pairs (source, target) that it describes: both directions of `between`, or one."""
        both = self.between is not None and self.ends[0] != self.ends[1]
        return (self.ends, self.ends[::-1]) if both else (self.ends,)


class Network(Summarised, Frozen):
    """Rules for all links, and the links that differ from them.

    Examples
    --------
    >>> Network(between_regions=Link(bandwidth_gbps=0.1, latency_ms=50)).within_region.bandwidth_gbps
    10.0
    """

    within_region: Link = Link(bandwidth_gbps=10, latency_ms=1)
    """Every link between two nodes of one region, or a node and a coordinator of one region."""
    between_regions: Link | None = None
    """Every link between two regions. Required where there are several regions."""
    links: tuple[LinkException, ...] = ()
    """Links that differ, by the names of their ends: two nodes, or two regions. A link of two nodes takes precedence
    over one of their regions."""
    nic_gbps: Bandwidth = 80.0
    """Bandwidth of each machine's network card per direction, shared by all its links."""

    @field_validator("within_region", "between_regions", mode="before")
    @classmethod
    def _a_rule_connects(cls, rule: Any) -> Any:
        given = rule.get("bandwidth_gbps") if isinstance(rule, dict) else None
        if type(given) in (int, float) and given == 0:
            raise ValueError(
                f"bandwidth_gbps = {given}: expected a number above 0; that two nodes or regions are not connected is "
                "said by an entry of `links`, such as {between: [a, b], bandwidth_gbps: 0}"
            )
        return rule

    def _title(self) -> str:
        return ""

    def _facts(self) -> dict[str, str]:
        def quality(link: Link) -> str:
            return f"{number(link.bandwidth_gbps)} Gbit/s and {number(link.latency_ms)} ms"

        facts = {"links": quality(self.within_region)}
        if self.between_regions is not None:
            facts["links between regions"] = quality(self.between_regions)
        if self.links:
            facts["other links"] = str(len(self.links))
        return {**facts, "network cards": f"{number(self.nic_gbps)} Gbit/s"}

    @property
    def nic_bytes_per_s(self) -> float:
        """Bandwidth of a network card in bytes/s, per direction."""
        return bytes_per_s(self.nic_gbps)


class LinkRules:
    """Finds the link between two ends: their own, or else that of their regions, or else the rule for all.

    Examples
    --------
    >>> slow = LinkException(between=("lab", "home"), bandwidth_gbps=0.05)
    >>> rules = LinkRules(Network(links=(slow,)), {"a": "lab", "b": "home", "c": "lab"})
    >>> rules.find("a", "b").bandwidth_gbps, rules.find("a", "c").bandwidth_gbps
    (0.05, 10.0)
    """

    def __init__(self, network: Network, region_of: Mapping[str, str]) -> None:
        self._network, self._region_of = network, region_of
        self._given = {
            pair: Link(bandwidth_gbps=link.bandwidth_gbps, latency_ms=link.latency_ms, usd_per_gb=link.usd_per_gb)
            for link in network.links
            for pair in link.directions
        }

    def find(self, source: str, target: str) -> Link | None:
        """The link from one end to another; None where no rule covers it."""
        return self._given.get((source, target)) or self.of_regions(self._region_of[source], self._region_of[target])

    def of_regions(self, source: str, target: str) -> Link | None:
        """The link from a node of one region to one of another, where the two nodes have no link of their own."""
        usual = self._network.within_region if source == target else self._network.between_regions
        return self._given.get((source, target)) or usual


def check_links(network: Network, region_of: Mapping[str, str]) -> None:
    """Raise ValueError for links with unknown or ambiguous ends, links given twice, and pairs without a link.

    Parameters
    ----------
    network
        The rules and the links that differ.
    region_of
        End (node name or ``coordinator``) -> its region.
    """
    # In a link, ``coordinator`` is the coordinator, even where a region is called so.
    regions = set(region_of.values()) - {COORDINATOR}
    given: dict[tuple[str, str], int] = {}
    for index, link in enumerate(network.links):
        where = f"network.links[{index}]"
        for end in link.ends:
            if end in regions and end in region_of:
                raise ValueError(f"{where}: {end!r} names a region and a node: expected different names for the two")
            if end not in regions and end not in region_of:
                raise ValueError(f"{where}: {_files.unknown('node or region', end, {*region_of, *regions})}")
        a, b = link.ends
        if (a in regions) != (b in regions):
            region, node = (a, b) if a in regions else (b, a)
            raise ValueError(f"{where}: expected two nodes or two regions, not region {region!r} and node {node!r}")
        if a == b and a not in regions:
            raise ValueError(f"{where}: expected two different ends, not {a!r} twice")
        for pair in link.directions:
            if pair in given:
                both = " -> ".join(pair)
                raise ValueError(f"{where}: the link {both} stands in links[{given[pair]}] too: expected it once")
            given[pair] = index
    if network.between_regions is not None or len(set(region_of.values())) == 1:
        return
    rules = LinkRules(network, region_of)
    for a, b in ((a, b) for a in region_of for b in region_of if a != b):
        if rules.find(a, b) is None:
            raise ValueError(
                f"network.between_regions is missing, and no link is given for {a} ({region_of[a]}) -> "
                f"{b} ({region_of[b]}), nor for their regions: several regions need a rule, there is no default"
            )


__all__ = ["Link", "LinkException", "Network", "bytes_per_s"]
