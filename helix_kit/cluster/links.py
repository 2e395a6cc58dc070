"""Links between machines: their quality, the rules for all of them, and those that differ."""

from __future__ import annotations

from pydantic import model_validator

from helix_kit._summary import Summarised, number
from helix_kit.cluster.fields import Bandwidth, Frozen, NonNegative


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
    latency_ms: NonNegative = 0.0
    """One way."""

    @property
    def bytes_per_s(self) -> float:
        """Bandwidth in bytes/s."""
        return bytes_per_s(self.bandwidth_gbps)

    @property
    def latency_s(self) -> float:
        """One-way latency in seconds."""
        return self.latency_ms / 1e3


class LinkException(Link):
    """A link that differs from the rule of its regions.

    Give `between` for both directions, or `source` and `target` for one.

    Examples
    --------
    >>> LinkException(between=("L4-0", "L4-1"), bandwidth_gbps=0.2).ends
    ('L4-0', 'L4-1')
    """

    between: tuple[str, str] | None = None
    """Two node names (or ``coordinator``)."""
    source: str | None = None
    """Node name (or ``coordinator``) that sends."""
    target: str | None = None
    """Node name (or ``coordinator``) that receives."""

    @model_validator(mode="after")
    def _one_form(self) -> LinkException:
        both_ways = self.between is not None
        one_way = self.source is not None and self.target is not None
        if both_ways == one_way or (both_ways and (self.source or self.target)):
            raise ValueError("expected either `between: [a, b]`, or both `source` and `target`")
        if len(set(self.ends)) != 2:
            raise ValueError(f"expected two different ends, not {self.ends[0]!r} twice")
        return self

    @property
    def ends(self) -> tuple[str, str]:
        """The two endpoints, in the order given."""
        return self.between or (self.source or "", self.target or "")


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
    """Links that differ, by the names of their ends."""
    nic_gbps: Bandwidth = 80.0
    """Bandwidth of each machine's network card per direction, shared by all its links."""

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


__all__ = ["Link", "LinkException", "Network", "bytes_per_s"]
