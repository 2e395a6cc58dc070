"""The cluster that a table of machines describes, with all that the table does not show kept from where it began.

A table says how many machines of which kind stand in which region, and two rules for links. A description says more:
names, links that are exceptions, GPUs of one's own, the network card. `edited` keeps these for every machine that is
still there.

>>> from helix_kit.cluster import Cluster
>>> given = Cluster.model_validate({
...     "name": "pair", "nodes": [{"gpu": "L4", "count": 2}],
...     "network": {"links": [{"between": ["L4-0", "L4-1"], "bandwidth_gbps": 2}]},
... })
>>> made, lost = edited(given, [Line("T4", 1, 3, "local", ("L4-0", "L4-1"))], name="mine", network=given.network)
>>> [n.name for n in made.nodes], made.link("T4-0", "T4-1").bandwidth_gbps, lost
(['T4-0', 'T4-1', 'T4-2'], 2.0, ())
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count

from helix_kit.cluster import COORDINATOR, Cluster, LinkException, Network, Node


@dataclass(frozen=True)
class Line:
    """A line of the table: `count` machines, the first of which are those of the given cluster called `names`."""

    gpu: str
    gpus_per_node: int
    count: int
    region: str
    names: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """As `Node.kind`."""
        return self.gpu if self.gpus_per_node == 1 else f"{self.gpu}x{self.gpus_per_node}"


def lines_of(cluster: Cluster) -> list[Line]:
    """The table of a cluster: a line for each kind and region, in order of appearance."""
    groups: dict[tuple[str, int, str], list[str]] = {}
    for node in cluster.nodes:
        groups.setdefault((node.gpu, node.gpus_per_node, node.region), []).append(node.name)
    return [Line(gpu, many, len(names), region, tuple(names)) for (gpu, many, region), names in groups.items()]


def edited(
    given: Cluster, lines: Iterable[Line], *, name: str, network: Network, coordinator: str | None = None
) -> tuple[Cluster, tuple[LinkException, ...]]:
    """The cluster of the table, and the exceptional links that were lost with their machines.

    Machines keep their names, unless a name told the kind (``L4-3``) and the kind has changed; exceptions in
    `network.links` follow their machines, under the new name too. `given.gpus` stays. Raises what `Cluster` raises.

    Parameters
    ----------
    network
        Rules, and exceptions by the names of `given`.
    coordinator
        Its region; by default as given.
    """
    before = {node.name: node for node in given.nodes}
    stays, added = _sorted_out(before, lines)
    names = {old: old for old, line in stays.items() if _keeps_name(before[old], line)}
    taken = set(names.values())
    for old, line in stays.items():
        if old not in names:
            names[old] = _fresh(line.kind, taken)
    nodes = [_fields(names[old], stays[old]) for old in before if old in stays]
    nodes += [_fields(_fresh(line.kind, taken), line) for line in added]
    names[COORDINATOR] = COORDINATOR
    links = [_renamed(link, names) for link in network.links if set(link.ends) <= set(names)]
    made = Cluster.model_validate(
        {
            **given.model_dump(exclude={"nodes", "network", "name", "coordinator"}),
            "name": name,
            "coordinator": {"region": given.coordinator.region if coordinator is None else coordinator},
            "nodes": nodes,
            "network": {**network.model_dump(exclude={"links"}), "links": links},
        }
    )
    return made, tuple(link for link in network.links if not set(link.ends) <= set(names))


def _sorted_out(before: dict[str, Node], lines: Iterable[Line]) -> tuple[dict[str, Line], list[Line]]:
    """Machines of before -> the line that they stand in now; and the line of each new machine."""
    stays: dict[str, Line] = {}
    added: list[Line] = []
    for line in lines:
        old = [name for name in line.names if name in before][: line.count]
        stays |= dict.fromkeys(old, line)
        added += [line] * (line.count - len(old))
    return stays, added


def _keeps_name(node: Node, line: Line) -> bool:
    return node.kind == line.kind or not re.fullmatch(rf"{re.escape(node.kind)}-\d+", node.name)


def _fresh(kind: str, taken: set[str]) -> str:
    name = next(name for i in count() if (name := f"{kind}-{i}") not in taken)
    taken.add(name)
    return name


def _fields(name: str, line: Line) -> dict[str, object]:
    return {"name": name, "gpu": line.gpu, "gpus_per_node": line.gpus_per_node, "region": line.region}


def _renamed(link: LinkException, names: dict[str, str]) -> dict[str, object]:
    fields = link.model_dump(exclude_none=True)
    ends = tuple(names[end] for end in link.ends)
    return fields | ({"between": ends} if link.between else {"source": ends[0], "target": ends[1]})
