"""A cluster: nodes, the coordinator and the network between them, checked as a whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from helix_kit import _files
from helix_kit._summary import Summarised, counted
from helix_kit.catalogue import Gpu, GpuLink, GpuPrice, gpu_links, gpus
from helix_kit.cluster.fields import COORDINATOR, MEMORY_SHARE, Frozen, Name, Share
from helix_kit.cluster.links import Link, LinkRules, Network, check_links
from helix_kit.cluster.machines import Coordinator, GpuSpec, Node, OwnPrice
from helix_kit.cluster.reading import OUR_FORM, expand_counts, foreign_kind, preset_names
from helix_kit.errors import InputError


class Cluster(Summarised, Frozen):
    """Nodes, the coordinator and the network between them.

    Raises
    ------
    pydantic.ValidationError
        From Python: a GPU is not in the catalogue, a node name is not unique, a link names an unknown node, or there
        is no rule for the links between two regions. The message names field and value.
    InputError
        The same faults in a file, with the file's name.

    Examples
    --------
    >>> cluster = Cluster.model_validate({"name": "pair", "nodes": [{"gpu": "L4"}, {"gpu": "T4", "count": 2}]})
    >>> cluster.kind_counts
    {'L4': 1, 'T4': 2}
    """

    name: Annotated[str, Field(min_length=1)]
    """Shown in messages and plans."""
    coordinator: Coordinator
    """By default in the region of the first node."""
    nodes: Annotated[tuple[Node, ...], Field(min_length=1)]
    """In Python and YAML, ``{gpu: L4, count: 3}`` stands for three nodes."""
    network: Network = Network()
    """Rules for all links, and the links that differ."""
    gpus: dict[Name, GpuSpec] = Field(default_factory=dict)
    """GPUs of your own by name. They take precedence over the catalogue and over measured tables of that name."""
    prices: dict[str, OwnPrice] = Field(default_factory=dict)
    """What one GPU costs you, by its name: dollars per hour, or ``{on_demand, reserved, spot}``. It comes before the
    catalogue's price. A GPU may have a price without being in the cluster, for the question what to buy."""
    memory_share: Share = MEMORY_SHARE
    """Share of each GPU's memory for weights, embeddings and KV cache, where a node's profile is an estimate."""
    throughput: Literal["machine", "published"] = "machine"
    """Definition of T(k), the tokens/s of a machine with k layers.

    ``machine``: it depends on the machine, the model and the mean lengths of requests alone. ``published``: the
    estimate of the Helix artifact, which also depends on the other machines; the paper's clusters are planned with it.
    """

    @classmethod
    def preset(cls, name: str) -> Cluster:
        """A cluster that ships with the package; `preset_names` lists their names."""
        if name not in preset_names():
            raise InputError(_files.unknown("cluster preset", name, preset_names()), field="cluster")
        return cls.load(_files.data_dir() / "clusters" / f"{name}.yaml")

    @classmethod
    def load(cls, path: str | Path) -> Cluster:
        """The cluster described by a YAML file."""
        text = _files.read_text(path)
        if kind := foreign_kind(text):
            raise InputError(f"{kind}: {OUR_FORM}", where=path)
        return _files.validate(cls, _files.read_yaml(path), path)

    def save(self, path: str | Path) -> None:
        """Write a YAML file from which `load` makes an equal cluster."""
        _files.write_result(path, self.to_yaml())

    def to_yaml(self) -> str:
        """The description as YAML, with one node on each line and every name written out."""
        return _files.write_yaml(self.model_dump(mode="json", exclude_none=True))

    @model_validator(mode="before")
    @classmethod
    def _expand_counts(cls, data: Any) -> Any:
        return expand_counts(data)

    @field_validator("prices", mode="before")
    @classmethod
    def _numbers_are_on_demand(cls, prices: Any) -> Any:
        if not isinstance(prices, dict):
            return prices
        for gpu, price in prices.items():
            if not isinstance(price, int | float | dict | OwnPrice) or isinstance(price, bool):
                raise ValueError(f"{gpu} = {price!r}: expected dollars per hour, or {{on_demand, reserved, spot}}")
        return {gpu: {"on_demand": p} if isinstance(p, int | float) else p for gpu, p in prices.items()}

    @model_validator(mode="after")
    def _known_gpus(self) -> Cluster:
        known = {*gpus(), *self.gpus}
        for index, node in enumerate(self.nodes):
            if node.gpu not in known:
                hint = "; or describe it under `gpus:`"
                raise ValueError(f"nodes[{index}].gpu: {_files.unknown('GPU', node.gpu, known)}{hint}")
        for gpu in self.prices:
            if gpu not in known:
                raise ValueError(f"prices.{gpu}: {_files.unknown('GPU', gpu, known)}")
        return self

    @model_validator(mode="after")
    def _known_gpu_links(self) -> Cluster:
        machines: dict[str, tuple[str, int, str | Link | None]] = {}
        for index, node in enumerate(self.nodes):
            if isinstance(node.gpu_link, str) and node.gpu_link not in (links := self._links_of(node.gpu)):
                raise ValueError(
                    f"nodes[{index}].gpu_link = {node.gpu_link!r}: nothing is known of this link between {node.gpu}: "
                    f"expected {' or '.join(links)}, or {{bandwidth_gbps: ..., latency_ms: ...}}"
                )
            machine = (node.gpu, node.gpus_per_node, node.gpu_link)
            if machines.setdefault(node.kind, machine) != machine:
                other, count, _ = machines[node.kind]
                raise ValueError(
                    f"nodes[{index}]: {node.gpus_per_node} x {node.gpu} and {count} x {other} would both be called "
                    f"{node.kind}: expected another name of the GPU under `gpus:`"
                )
        return self

    @field_validator("nodes")
    @classmethod
    def _unique_names(cls, nodes: tuple[Node, ...]) -> tuple[Node, ...]:
        for name, times in Counter(n.name for n in nodes).items():
            if times > 1:
                raise ValueError(f"node name {name!r} stands {times} times: expected unique names")
            if name == COORDINATOR:
                raise ValueError(f"{COORDINATOR!r} is reserved: expected another node name")
        return nodes

    @model_validator(mode="after")
    def _links_are_complete(self) -> Cluster:
        check_links(self.network, self._region_of)
        return self

    @cached_property
    def _by_name(self) -> dict[str, Node]:
        return {n.name: n for n in self.nodes}

    @cached_property
    def _region_of(self) -> dict[str, str]:
        """Region of the coordinator and of each node."""
        return {COORDINATOR: self.coordinator.region} | {n.name: n.region for n in self.nodes}

    @cached_property
    def _links(self) -> LinkRules:
        return LinkRules(self.network, self._region_of)

    def _title(self) -> str:
        return self.name

    def _facts(self) -> dict[str, str]:
        facts = {"nodes": f"{len(self.nodes)} ({counted(self.kind_counts)})"}
        if len(self.regions) > 1:
            facts["regions"] = counted(dict(Counter(n.region for n in self.nodes)))
        rules = self.network._facts()
        unused = {"network cards"} | ({"links between regions"} if len(self.regions) == 1 else set())
        return facts | {name: text for name, text in rules.items() if name not in unused}

    def node(self, name: str) -> Node:
        """The node called `name`. An unknown name is an InputError that lists similar names."""
        if name not in self._by_name:
            raise InputError(_files.unknown("node", name, self._by_name), where=f"cluster {self.name}")
        return self._by_name[name]

    def gpu(self, name: str) -> Gpu:
        """Figures of the GPU called `name`: those of `gpus`, or else the catalogue's; `prices` gives its price."""
        where = f"cluster {self.name}"
        if name in self.gpus:
            figures = self.gpus[name].model_dump(exclude={"nvlink", "pcie", "price_usd_per_hour"})
            price = self.gpus[name].price_usd_per_hour
            gpu = Gpu(name=name, source=where, price=GpuPrice(price, price, price, where), **figures)
        else:
            gpu = gpus()[name]
        if (own := self.prices.get(name)) is None:
            return gpu
        reserved, spot = (own.on_demand if p is None else p for p in (own.reserved, own.spot))
        return replace(gpu, price=GpuPrice(own.on_demand, reserved, spot, where))

    def usd_per_hour(self, node: Node, payment: str = "on_demand") -> float | None:
        """Price of a machine: that of its GPUs by one of `helix_kit.catalogue.PAYMENTS`; None where unknown."""
        price = self.gpu(node.gpu).price.of(payment)
        return None if price is None else price * node.gpus_per_node

    def _links_of(self, gpu: str) -> dict[str, GpuLink]:
        return self.gpus[gpu].links(f"cluster {self.name}") if gpu in self.gpus else gpu_links(gpu)

    def gpu_link(self, node: Node) -> GpuLink:
        """The link between the GPUs of a node: its own `gpu_link`, or else the usual one of its GPU."""
        if isinstance(node.gpu_link, Link):
            link = node.gpu_link
            return GpuLink("given", link.bandwidth_gbps, link.latency_ms, f"cluster {self.name}")
        links = self._links_of(node.gpu)
        return links[node.gpu_link or next(iter(links))]

    def region_of(self, name: str) -> str:
        """Region of a node or of the coordinator."""
        region = self._region_of.get(name)
        return self.node(name).region if region is None else region

    def link(self, source: str, target: str) -> Link:
        """Quality of the link from `source` to `target` (node names or ``coordinator``)."""
        for end in (source, target):
            self.region_of(end)  # an unknown name is an InputError
        link = self._links.find(source, target)
        assert link is not None, "validated on construction"
        return link

    def region_link(self, source: str, target: str) -> Link | None:
        """Quality of the links from nodes of one region to nodes of another that have no link of their own.

        None where each pair of nodes has a link of its own, so that no rule was given.
        """
        return self._links.of_regions(source, target)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Cluster:
        """A copy with some fields replaced. Cached properties are computed anew."""
        copied = super().model_copy(update=update, deep=deep)
        for name in ("_by_name", "_region_of", "_links"):
            copied.__dict__.pop(name, None)
        return copied

    @property
    def regions(self) -> tuple[str, ...]:
        """Regions of the nodes and the coordinator, in order of appearance."""
        return tuple(dict.fromkeys([n.region for n in self.nodes] + [self.coordinator.region]))

    @property
    def kind_counts(self) -> dict[str, int]:
        """Number of machines of each kind, in order of appearance."""
        return dict(Counter(n.kind for n in self.nodes))

    def with_memory_share(self, share: float) -> Cluster:
        """The same cluster with another `memory_share`. InputError for a number that is not in (0, 1]."""
        if not 0 < share <= 1:
            raise InputError("expected a number above 0, at most 1", field="memory_share", value=share)
        return self.model_copy(update={"memory_share": share})

    def subset(self, names: list[str] | tuple[str, ...], name: str | None = None) -> Cluster:
        """The cluster with only the nodes called `names` (in cluster order), and the links between them."""
        keep = {self.node(n).name for n in names}
        nodes = tuple(n for n in self.nodes if n.name in keep)
        ends = keep | {COORDINATOR, self.coordinator.region} | {n.region for n in nodes}
        links = tuple(link for link in self.network.links if set(link.ends) <= ends)
        return Cluster(
            name=name or f"{self.name}-part",
            coordinator=self.coordinator,
            nodes=nodes,
            network=self.network.model_copy(update={"links": links}),
            gpus=self.gpus,
            prices=self.prices,
            memory_share=self.memory_share,
            throughput=self.throughput,
        )


def load_cluster(name_or_path: str | Path) -> Cluster:
    """The cluster that the command line's CLUSTER argument means.

    Parameters
    ----------
    name_or_path
        Name of a preset, or path of a YAML file. A preset takes precedence.

    Returns
    -------
    Cluster
        The description.

    Raises
    ------
    InputError
        There is no such preset or file, or the file does not describe a cluster.

    Examples
    --------
    >>> len(load_cluster("single24").nodes)
    24
    """
    if str(name_or_path) in preset_names():
        return Cluster.preset(str(name_or_path))
    path = Path(name_or_path)
    if path.suffix not in {".yaml", ".yml"} and not _files.exists(path):
        raise InputError(_files.unknown("cluster preset", str(name_or_path), preset_names()) + ", or a .yaml file")
    return Cluster.load(path)


__all__ = ["Cluster", "load_cluster"]
