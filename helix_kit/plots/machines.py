"""What a flow picture shows of a plan: machines (equal ones merged if asked) and the flow between them."""

from __future__ import annotations

from dataclasses import dataclass

from helix_kit.cluster import COORDINATOR
from helix_kit.flow import Edge
from helix_kit.placement.plan import Plan

MERGE_ABOVE = 60
"""By default equal machines are merged in the picture of a plan with more machines than this."""


@dataclass(frozen=True, slots=True)
class Machine:
    """One bar: a node, or several merged nodes of one kind and region that hold the same layers."""

    id: str
    """Name of the first node."""
    nodes: tuple[str, ...]
    """Names of all nodes."""
    kind: str
    region: str
    start: int
    end: int
    flow: float
    """Tokens/s."""
    capacity: float
    """Tokens/s of all nodes together."""
    in_cut: bool

    @property
    def utilisation(self) -> float:
        """Flow / capacity, 0 to 1."""
        return _utilisation(self.flow, self.capacity)

    @property
    def label(self) -> str:
        """The name, or kind and number of merged nodes."""
        return self.id if len(self.nodes) == 1 else f"{self.kind} ×{len(self.nodes)}"

    @property
    def short_label(self) -> str:
        """The label without the kind, which stands beside the swimlane."""
        return f"#{self.number}" if self.number.isdecimal() else self.number

    @property
    def number(self) -> str:
        """The number in a generated name, or else the label."""
        if len(self.nodes) > 1:
            return f"×{len(self.nodes)}"
        number = self.id.removeprefix(f"{self.kind}-")
        return number if number.isdecimal() else self.id


@dataclass(frozen=True, slots=True)
class Stream:
    """Flow from one bar (or the coordinator) to another."""

    source: str
    target: str
    flow: float
    """Tokens/s."""
    capacity: float
    in_cut: bool
    crosses_regions: bool
    layer: int
    """The layer at which the target continues (the number of layers for a stream to the coordinator)."""
    partial: bool
    """Whether it enters the target's range after its first layer."""

    @property
    def utilisation(self) -> float:
        """Flow / capacity, 0 to 1."""
        return _utilisation(self.flow, self.capacity)


def _utilisation(flow: float, capacity: float) -> float:
    return min(1.0, flow / capacity) if capacity else 0.0


def machines_and_streams(plan: Plan, merge: bool | None = None) -> tuple[list[Machine], list[Stream]]:
    """Bars in cluster order and streams in the plan's order; `merge` None: if the plan has over `MERGE_ABOVE` nodes."""
    if merge is None:
        merge = len(plan.placement) > MERGE_ABOVE
    flow, cut = plan.max_flow, set(plan.max_flow.min_cut)
    through: dict[str, float] = {}
    for (_, target), rate in plan.flow_edges.items():
        through[target] = through.get(target, 0.0) + rate
    merged: dict[tuple[object, ...], list[str]] = {}
    for node in plan.cluster.nodes:
        if node.name in plan.placement:
            key = (node.kind, node.region, *plan.placement[node.name], *(() if merge else (node.name,)))
            merged.setdefault(key, []).append(node.name)
    machines, bar_of = [], {COORDINATOR: COORDINATOR}
    for names in merged.values():
        node = plan.cluster.node(names[0])
        start, end = plan.placement[names[0]]
        machines.append(
            Machine(
                id=names[0],
                nodes=tuple(names),
                kind=node.kind,
                region=node.region,
                start=start,
                end=end,
                flow=sum(through.get(n, 0.0) for n in names),
                capacity=sum(flow.capacities.get((n, n), 0.0) for n in names),
                in_cut=any((n, n) in cut for n in names),
            )
        )
        bar_of.update(dict.fromkeys(names, names[0]))
    links: dict[Edge, list[Edge]] = {}
    for source, target in plan.flow_edges:
        links.setdefault((bar_of[source], bar_of[target]), []).append((source, target))
    return machines, [_stream(plan, ends, edges, cut) for ends, edges in links.items()]


def _stream(plan: Plan, ends: Edge, edges: list[Edge], cut: set[Edge]) -> Stream:
    source, target = ends
    layer = 0 if source == COORDINATOR else plan.placement[source][1]
    return Stream(
        source=source,
        target=target,
        flow=sum(plan.flow_edges[e] for e in edges),
        capacity=sum(plan.max_flow.capacities.get(e, 0.0) for e in edges),
        in_cut=any(e in cut for e in edges),
        crosses_regions=plan.cluster.region_of(source) != plan.cluster.region_of(target),
        layer=layer,
        partial=target != COORDINATOR and plan.placement[target][0] < layer,
    )


def capacity_by_layer(plan: Plan) -> list[float]:
    """Tokens/s of all nodes that hold a layer, for each layer; the flow is at most the smallest of them."""
    total = [0.0] * plan.model.num_layers
    for name, (start, end) in plan.placement.items():
        for layer in range(start, end):
            total[layer] += plan.node_throughput_tokens_per_s[name]
    return total
