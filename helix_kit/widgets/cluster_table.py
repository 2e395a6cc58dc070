"""A cluster as a table of machines, and the cluster that an edited table describes.

The table says how many machines of each kind stand in each region. A cluster file says more: names of machines,
exceptional links, GPUs of its own, the network card. `apply_table` keeps all this for every machine that is still in
the table.

>>> from helix_kit.cluster import Cluster
>>> before = Cluster.model_validate({
...     "name": "pair", "nodes": [{"gpu": "L4", "count": 2}],
...     "network": {"links": [{"between": ["L4-0", "L4-1"], "bandwidth_gbps": 2}]},
... })
>>> rows = [TableRow("T4", 1, 3, "local", ("L4-0", "L4-1"))]
>>> after, lost_links = apply_table(before, rows, name="mine", network=before.network)
>>> [n.name for n in after.nodes], after.link("T4-0", "T4-1").bandwidth_gbps, lost_links
(['T4-0', 'T4-1', 'T4-2'], 2.0, ())
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count

from helix_kit.cluster import COORDINATOR, Cluster, Link, LinkException, Network, Node


@dataclass(frozen=True)
class TableRow:
    """`count` equal machines of one region. `names` are those among them that the cluster already had.

    `gpu_link` is the link between the GPUs of a machine, and `tensor_parallel` how many share a layer, as in `Node`.
    """

    gpu: str
    gpus_per_node: int
    count: int
    region: str
    names: tuple[str, ...] = ()
    gpu_link: str | Link | None = None
    tensor_parallel: int | None = None

    @property
    def kind(self) -> str:
        """Kind of machine, as in `Node.kind`."""
        return Node.model_validate({**_node_fields("new", self), "region": "new"}).kind


def table_of(cluster: Cluster) -> list[TableRow]:
    """The table of a cluster: one row for each kind and region, in order of appearance."""
    groups: dict[tuple[str, str], list[Node]] = {}
    for node in cluster.nodes:
        groups.setdefault((node.kind, node.region), []).append(node)
    return [
        TableRow(
            nodes[0].gpu,
            nodes[0].gpus_per_node,
            len(nodes),
            region,
            tuple(n.name for n in nodes),
            nodes[0].gpu_link,
            nodes[0].tensor_parallel,
        )
        for (_, region), nodes in groups.items()
    ]


def apply_table(
    given: Cluster, rows: Iterable[TableRow], *, name: str, network: Network, coordinator_region: str | None = None
) -> tuple[Cluster, tuple[LinkException, ...]]:
    """The cluster that a table describes.

    A machine keeps its name, unless the name tells the kind (``L4-3``) and the kind has changed. Exceptional links
    follow their machines to new names. `given.gpus` stays.

    Parameters
    ----------
    given
        The cluster that the table was made from.
    rows
        The table as it is now.
    name
        Name of the new cluster.
    network
        Rules for all links, and exceptional links by the machines' names in `given`.
    coordinator_region
        Region of the coordinator. None: as in `given`.

    Returns
    -------
    tuple of Cluster and tuple of LinkException
        The cluster, and the exceptional links that were lost because one of their machines is gone.

    Raises
    ------
    pydantic.ValidationError
        The table does not describe a valid cluster.
    """
    before = {node.name: node for node in given.nodes}
    kept_rows, added = _match_rows(before, rows)
    names = {old: old for old, row in kept_rows.items() if _keeps_name(before[old], row)}
    taken = set(names.values())
    for old, row in kept_rows.items():
        if old not in names:
            names[old] = _unused_name(row.kind, taken)
    nodes = [_node_fields(names[old], kept_rows[old]) for old in before if old in kept_rows]
    nodes += [_node_fields(_unused_name(row.kind, taken), row) for row in added]
    names[COORDINATOR] = COORDINATOR
    coordinator = given.coordinator.region if coordinator_region is None else coordinator_region
    # A link between regions stays as long as both regions do.
    for region in [*(str(node["region"]) for node in nodes), coordinator]:
        names.setdefault(region, region)
    links = [_renamed_link(link, names) for link in network.links if set(link.ends) <= set(names)]
    cluster = Cluster.model_validate(
        {
            **given.model_dump(exclude={"nodes", "network", "name", "coordinator"}),
            "name": name,
            "coordinator": {"region": coordinator},
            "nodes": nodes,
            "network": {**network.model_dump(exclude={"links"}), "links": links},
        }
    )
    return cluster, tuple(link for link in network.links if not set(link.ends) <= set(names))


def _match_rows(before: dict[str, Node], rows: Iterable[TableRow]) -> tuple[dict[str, TableRow], list[TableRow]]:
    """The row of each machine that stays, by its old name, and one row for each new machine."""
    kept_rows: dict[str, TableRow] = {}
    added: list[TableRow] = []
    for row in rows:
        old_names = [name for name in row.names if name in before][: row.count]
        kept_rows |= dict.fromkeys(old_names, row)
        added += [row] * (row.count - len(old_names))
    return kept_rows, added


def _keeps_name(node: Node, row: TableRow) -> bool:
    return node.kind == row.kind or not re.fullmatch(rf"{re.escape(node.kind)}-\d+", node.name)


def _unused_name(kind: str, taken: set[str]) -> str:
    """The first ``KIND-i`` that is not in `taken`, which it joins."""
    name = next(name for i in count() if (name := f"{kind}-{i}") not in taken)
    taken.add(name)
    return name


def _node_fields(name: str, row: TableRow) -> dict[str, object]:
    return {
        "name": name,
        "gpu": row.gpu,
        "gpus_per_node": row.gpus_per_node,
        "region": row.region,
        "gpu_link": row.gpu_link,
        "tensor_parallel": row.tensor_parallel,
    }


def _renamed_link(link: LinkException, names: dict[str, str]) -> dict[str, object]:
    fields = link.model_dump(exclude_none=True)
    ends = tuple(names[end] for end in link.ends)
    return fields | ({"between": ends} if link.between else {"source": ends[0], "target": ends[1]})
