"""What you have: nodes (machines with one or more GPUs), regions, and the links between them.

A cluster is a frozen description. It comes from a preset, a YAML file or Python:

>>> from helix_kit.cluster import Cluster
>>> cluster = Cluster.model_validate({
...     "name": "two-regions",
...     "coordinator": {"region": "us"},
...     "nodes": [
...         {"gpu": "A100-40G", "count": 2, "region": "us"},
...         {"gpu": "L4", "gpus_per_node": 2, "region": "eu"},
...     ],
...     "network": {
...         "within_region": {"bandwidth_gbps": 10, "latency_ms": 1},
...         "between_regions": {"bandwidth_gbps": 0.1, "latency_ms": 50},
...     },
... })
>>> [node.name for node in cluster.nodes]
['A100-40G-0', 'A100-40G-1', 'L4x2-0']
>>> cluster.link("A100-40G-0", "L4x2-0").latency_ms
50.0

Units are in the names: ``bandwidth_gbps`` is 10^9 bit/s in each direction, ``latency_ms`` one way.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from helix_kit import _files
from helix_kit._summary import Summarised, counted, number
from helix_kit.catalogue import Gpu, GpuLink, gpu_links, gpus
from helix_kit.errors import InputError

COORDINATOR = "coordinator"
"""Name of the paper's source and sink: requests start and end at it."""

MEMORY_SHARE = 0.9
"""Share of a GPU's memory for weights, embeddings and KV cache. The rest is for CUDA and a step's values."""

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
Name = Annotated[str, StringConstraints(min_length=1, pattern=NAME_PATTERN)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Bandwidth = Annotated[float, Field(gt=0, le=1e18, allow_inf_nan=False)]
"""In Gbit/s. The largest value is far above any machine's, and small enough that tokens/s do not overflow."""
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


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


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Link(_Frozen):
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


class Network(Summarised, _Frozen):
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


GPU_LINK_NAMES = ("nvlink", "pcie")
"""What a node's `gpu_link` may name."""


class Node(_Frozen):
    """One machine as the planner sees it.

    Examples
    --------
    >>> Node(name="a", gpu="L4", gpus_per_node=2).kind
    'L4x2'
    >>> Node(name="a", gpu="H100-80G", gpus_per_node=4, gpu_link="pcie").kind
    'H100-80Gx4-pcie'
    """

    name: Name
    """Unique within the cluster."""
    gpu: Annotated[str, Field(min_length=1)]
    """A name of the GPU catalogue, or of the cluster's own `gpus`."""
    gpus_per_node: Annotated[int, Field(ge=1, le=64, strict=True)] = 1
    """Equal GPUs that hold the node's layers together."""
    region: Name = "local"
    """Decides which rule its links follow."""
    gpu_link: str | Link | None = None
    """Link between the node's GPUs: ``nvlink``, ``pcie``, or figures of your own. None: the usual one of the GPU."""

    @field_validator("gpu_link", mode="before")
    @classmethod
    def _name_or_figures(cls, given: Any) -> Any:
        if given is None or isinstance(given, Link) or given in GPU_LINK_NAMES:
            return given
        if isinstance(given, dict):
            try:
                return Link.model_validate(given)
            except ValidationError as error:
                raise ValueError(_files.describe(error, Link)) from None
        raise ValueError("expected nvlink, pcie, or {bandwidth_gbps: ..., latency_ms: ...}")

    @model_validator(mode="after")
    def _link_needs_two_gpus(self) -> Node:
        if self.gpu_link is not None and self.gpus_per_node == 1:
            raise ValueError("gpu_link: expected only with gpus_per_node of at least 2")
        return self

    @property
    def base_kind(self) -> str:
        """Kind of the machine with the usual link between its GPUs: ``L4``, or ``L4x2`` with two GPUs."""
        return self.gpu if self.gpus_per_node == 1 else f"{self.gpu}x{self.gpus_per_node}"

    @property
    def kind(self) -> str:
        """Key of the machine's profile: ``L4``, ``L4x2`` with two GPUs, ``L4x2-pcie`` where the link is given."""
        if self.gpu_link is None:
            return self.base_kind
        if isinstance(self.gpu_link, Link):
            return f"{self.base_kind}-{self.gpu_link.bandwidth_gbps:g}gbps-{self.gpu_link.latency_ms:g}ms"
        return f"{self.base_kind}-{self.gpu_link}"


class GpuSpec(_Frozen):
    """Figures of one GPU that the catalogue lacks.

    Examples
    --------
    >>> GpuSpec(memory_gb=11, memory_bandwidth_gb_per_s=484, fp16_tflops=11).price_usd_per_hour is None
    True
    """

    memory_gb: Positive
    """10^9 bytes."""
    memory_bandwidth_gb_per_s: Positive
    """10^9 bytes/s."""
    fp16_tflops: Positive
    """10^12 operations/s, without sparsity."""
    price_usd_per_hour: Positive | None = None
    """None where unknown."""
    nvlink: Link | None = None
    """NVLink between such GPUs of one node, as an all-reduce reaches it; the latency is that of one step of a ring."""
    pcie: Link | None = None
    """PCIe between such GPUs of one node. None: through the host's memory (row ``*`` of ``data/gpu_links.csv``)."""

    def links(self, source: str) -> dict[str, GpuLink]:
        """The links between such GPUs of one node, the usual one first."""
        given = {"nvlink": self.nvlink, "pcie": self.pcie}
        return {
            name: GpuLink(name, link.bandwidth_gbps, link.latency_ms, source) for name, link in given.items() if link
        } | ({} if self.pcie else {"pcie": gpu_links("*")["pcie"]})


class Coordinator(_Frozen):
    """The machine that receives requests and returns answers.

    Examples
    --------
    >>> Coordinator(region="us").region
    'us'
    """

    region: Name
    """Region whose links it uses."""


class Cluster(Summarised, _Frozen):
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

    name: str
    """Shown in messages and plans."""
    coordinator: Coordinator
    """By default in the region of the first node."""
    nodes: Annotated[tuple[Node, ...], Field(min_length=1)]
    """In Python and YAML, ``{gpu: L4, count: 3}`` stands for three nodes."""
    network: Network = Network()
    """Rules for all links, and the links that differ."""
    gpus: dict[Name, GpuSpec] = Field(default_factory=dict)
    """GPUs of your own by name. They take precedence over the catalogue and over measured tables of that name."""
    memory_share: Annotated[float, Field(gt=0, le=1)] = MEMORY_SHARE
    """Share of each GPU's memory for weights, embeddings and KV cache, where a node's profile is an estimate."""

    @classmethod
    def preset(cls, name: str) -> Cluster:
        """A cluster that ships with the package; `preset_names` lists their names."""
        if name not in preset_names():
            raise InputError(_files.unknown("cluster preset", name, preset_names()), field="cluster")
        return cls.load(_files.data_dir() / "clusters" / f"{name}.yaml")

    @classmethod
    def load(cls, path: str | Path) -> Cluster:
        """The cluster described by a YAML file."""
        return _files.validate(cls, _files.read_yaml(path), path)

    def save(self, path: str | Path) -> None:
        """Write a YAML file from which `load` makes an equal cluster."""
        Path(path).write_text(self.to_yaml(), encoding="utf-8")

    def to_yaml(self) -> str:
        """The description as YAML, with one node on each line and every name written out."""
        return _files.write_yaml(self.model_dump(mode="json", exclude_none=True))

    @model_validator(mode="before")
    @classmethod
    def _expand_counts(cls, data: Any) -> Any:
        """Replace ``{gpu: L4, count: 3}`` by three named nodes, numbered by kind in file order."""
        if not isinstance(data, dict) or not isinstance(data.get("nodes"), list | tuple):
            return data
        coordinator = data.get("coordinator")
        default_region = coordinator.get("region") if isinstance(coordinator, dict) else None
        regions_named = any(n.get("region") is not None for n in data["nodes"] if isinstance(n, dict))
        nodes: list[Any] = []
        faults: list[str] = []
        seen: Counter[str] = Counter()
        for index, entry in enumerate(data["nodes"]):
            if not isinstance(entry, dict):
                nodes.append(entry)
                continue
            fields = dict(entry)
            count = fields.pop("count", 1)
            if not isinstance(count, int) or isinstance(count, bool) or count < 1:
                raise ValueError(f"nodes[{index}].count = {count!r}: expected a whole number of at least 1")
            if "name" in fields and count > 1:
                raise ValueError(f"nodes[{index}]: a node with a `name` has `count: 1`, not {count}")
            if fields.get("region") is None:
                fields.pop("region", None)
                if regions_named:
                    raise ValueError(f"nodes[{index}]: expected a `region`, since other nodes have one")
                if isinstance(default_region, str):
                    fields["region"] = default_region
            stem = "node"
            try:
                # A fault in the GPU's name is one fault, not one more in each name that is made from it.
                kind = Node.model_validate({"name": f"{stem}-0", **fields}).kind
                stem = kind if re.fullmatch(NAME_PATTERN, kind) else stem
            except ValidationError as error:
                # Here the index is that of the file's entry: behind it, an entry with a count is several nodes.
                faults += [f"nodes[{index}].{line}" for line in _files.problems_of(error, Node)]
            for _ in range(count):
                nodes.append({"name": f"{stem}-{seen[stem]}", **fields})
                seen[stem] += 1
        if faults:
            raise ValueError("; ".join(faults))
        region = next((n.get("region", "local") for n in nodes if isinstance(n, dict)), "local")
        if not (isinstance(region, str) and re.fullmatch(NAME_PATTERN, region)):
            region = "local"
        return {**data, "nodes": nodes, "coordinator": coordinator or {"region": region}}

    @model_validator(mode="after")
    def _known_gpus(self) -> Cluster:
        known = {*gpus(), *self.gpus}
        for index, node in enumerate(self.nodes):
            if node.gpu not in known:
                hint = "; or describe it under `gpus:`"
                raise ValueError(f"nodes[{index}].gpu: {_files.unknown('GPU', node.gpu, known)}{hint}")
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
        names = {n.name for n in self.nodes} | {COORDINATOR}
        for index, link in enumerate(self.network.links):
            for end in link.ends:
                if end not in names:
                    raise ValueError(f"network.links[{index}]: {_files.unknown('node', end, names)}")
        given: dict[tuple[str, str], int] = {}
        for index, link in enumerate(self.network.links):
            for pair in [link.ends, link.ends[::-1]] if link.between is not None else [link.ends]:
                if pair in given:
                    both = " -> ".join(pair)
                    raise ValueError(
                        f"network.links[{index}]: the link {both} stands in links[{given[pair]}] too: expected it once"
                    )
                given[pair] = index
        if self.network.between_regions is None and len(self.regions) > 1:
            missing = next(((a, b) for a, b in self._pairs() if self._find_link(a, b) is None), None)
            if missing:
                a, b = missing
                raise ValueError(
                    f"network.between_regions is missing, and no link is given for {a} ({self.region_of(a)}) -> "
                    f"{b} ({self.region_of(b)}): several regions need a rule, there is no default"
                )
        return self

    @cached_property
    def _by_name(self) -> dict[str, Node]:
        return {n.name: n for n in self.nodes}

    @cached_property
    def _exceptions(self) -> dict[tuple[str, str], Link]:
        table: dict[tuple[str, str], Link] = {}
        for link in self.network.links:
            quality = Link(bandwidth_gbps=link.bandwidth_gbps, latency_ms=link.latency_ms)
            table[link.ends] = quality
            if link.between is not None:
                table[link.ends[::-1]] = quality
        return table

    def _pairs(self) -> Iterator[tuple[str, str]]:
        ends = [COORDINATOR, *self._by_name]
        return ((a, b) for a in ends for b in ends if a != b)

    def _find_link(self, source: str, target: str) -> Link | None:
        if exception := self._exceptions.get((source, target)):
            return exception
        same = self.region_of(source) == self.region_of(target)
        return self.network.within_region if same else self.network.between_regions

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
        """Figures of the GPU called `name`: those of `gpus`, or else those of the catalogue."""
        if name in self.gpus:
            figures = self.gpus[name].model_dump(exclude={"nvlink", "pcie"})
            return Gpu(name=name, source=f"cluster {self.name}", **figures)
        return gpus()[name]

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
        return self.coordinator.region if name == COORDINATOR else self.node(name).region

    def link(self, source: str, target: str) -> Link:
        """Quality of the link from `source` to `target` (node names or ``coordinator``)."""
        link = self._find_link(source, target)
        assert link is not None, "validated on construction"
        return link

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
        ends = keep | {COORDINATOR}
        links = tuple(link for link in self.network.links if set(link.ends) <= ends)
        return Cluster(
            name=name or f"{self.name}-part",
            coordinator=self.coordinator,
            nodes=tuple(n for n in self.nodes if n.name in keep),
            network=self.network.model_copy(update={"links": links}),
            gpus=self.gpus,
            memory_share=self.memory_share,
        )


def preset_names() -> list[str]:
    """Names that `Cluster.preset` accepts.

    Returns
    -------
    list of str
        Sorted.

    Examples
    --------
    >>> "single24" in preset_names()
    True
    """
    return sorted(path.stem for path in (_files.data_dir() / "clusters").glob("*.yaml"))


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
    if path.suffix not in {".yaml", ".yml"} and not path.exists():
        raise InputError(_files.unknown("cluster preset", str(name_or_path), preset_names()) + ", or a .yaml file")
    return Cluster.load(path)


__all__ = [
    "COORDINATOR",
    "Cluster",
    "Coordinator",
    "GpuSpec",
    "Link",
    "LinkException",
    "Network",
    "Node",
    "bytes_per_s",
    "load_cluster",
    "preset_names",
]
