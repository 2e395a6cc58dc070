"""What a flow picture shows of a plan: machines (equal ones merged on demand) and the flow between them."""

from __future__ import annotations

from dataclasses import dataclass

from helix_kit.cluster import COORDINATOR
from helix_kit.flow import Edge
from helix_kit.placement.plan import Plan

MERGE_ABOVE = 60
"""Plans of more machines than this are drawn with equal machines merged."""


@dataclass(frozen=True, slots=True)
class Machine:
    """One bar: a machine, or several of one kind and region that hold the same layers."""

    id: str
    members: tuple[str, ...]
    kind: str
    region: str
    start: int
    end: int
    flow: float
    """Tokens/s."""
    capacity: float
    """Tokens/s of all members together."""
    in_cut: bool

    @property
    def utilisation(self) -> float:
        """Flow / capacity, 0 to 1."""
        return min(1.0, self.flow / self.capacity) if self.capacity else 0.0

    @property
    def label(self) -> str:
        """Name, or kind and number when merged."""
        return self.id if len(self.members) == 1 else f"{self.kind} ×{len(self.members)}"

    @property
    def short_label(self) -> str:
        """The label without the kind, which its swimlane already tells."""
        return f"#{self.number}" if self.number.isdecimal() else self.number

    @property
    def number(self) -> str:
        """The number in a generated name, else the label."""
        if len(self.members) > 1:
            return f"×{len(self.members)}"
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
    """The layer at which the target takes over (L on the way back to the coordinator)."""
    partial: bool
    """Whether it enters the target's range after its first layer."""

    @property
    def utilisation(self) -> float:
        """Flow / capacity, 0 to 1."""
        return min(1.0, self.flow / self.capacity) if self.capacity else 0.0


def machines_and_streams(plan: Plan, merge: bool | None = None) -> tuple[list[Machine], list[Stream]]:
    """Bars in cluster order and streams in the plan's order; `merge` None: merge above `MERGE_ABOVE` nodes."""
    if merge is None:
        merge = len(plan.placement) > MERGE_ABOVE
    flow, cut = plan.max_flow, set(plan.max_flow.min_cut)
    through: dict[str, float] = {}
    for (_, target), rate in plan.flow_edges.items():
        through[target] = through.get(target, 0.0) + rate
    together: dict[tuple[object, ...], list[str]] = {}
    for node in plan.cluster.nodes:
        if node.name in plan.placement:
            key = (node.kind, node.region, *plan.placement[node.name], *(() if merge else (node.name,)))
            together.setdefault(key, []).append(node.name)
    machines, bar_of = [], {COORDINATOR: COORDINATOR}
    for names in together.values():
        node = plan.cluster.node(names[0])
        start, end = plan.placement[names[0]]
        machines.append(
            Machine(
                id=names[0],
                members=tuple(names),
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
    """Tokens/s that the holders of each layer can serve together; the flow is at most the least of them."""
    total = [0.0] * plan.model.num_layers
    for name, (start, end) in plan.placement.items():
        for layer in range(start, end):
            total[layer] += plan.node_throughput_tokens_per_s[name]
    return total
