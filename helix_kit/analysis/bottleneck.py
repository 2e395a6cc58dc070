"""The bottleneck of a plan as sentences: its min cut, the layers behind it, and the room for KV caches."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from helix_kit._summary import number
from helix_kit._wording import agreeing, count_text, join_names
from helix_kit.analysis.model_words import model_words
from helix_kit.analysis.node_splits import split_words
from helix_kit.analysis.request_lengths import mean_context, pairs_of
from helix_kit.cluster import COORDINATOR, UNCONNECTED_GBPS
from helix_kit.flow import Edge
from helix_kit.placement.plan import Plan

ALMOST = 0.999
"""Layers count as saturated when the nodes that hold them are used to at least this share."""


@dataclass(frozen=True)
class LayerRange:
    """Layers [start, end) that the same nodes hold, and the capacity of these nodes together."""

    start: int
    end: int
    holders: tuple[str, ...]
    capacity_tokens_per_s: float

    @property
    def words(self) -> str:
        """``layer 3`` or ``layers 3-7``, counted from 0, both ends included."""
        return f"layer {self.start}" if self.end - self.start == 1 else f"layers {self.start}-{self.end - 1}"

    def agreeing(self, singular: str, plural: str) -> str:
        """The form of a verb whose subject is `words`."""
        return agreeing(self.end - self.start, singular, plural)


@dataclass(frozen=True)
class Bottleneck:
    """What limits a plan's flow.

    Examples
    --------
    >>> from helix_kit import Cluster, Model, plan
    >>> cluster = Cluster.model_validate({"name": "six", "nodes": [{"gpu": "L4", "count": 6}]})
    >>> six = plan(cluster, Model.preset("llama-30b"), method="proportional")
    >>> limit = bottleneck(six)
    >>> limit.idle, len(limit.layers)
    ((), 6)
    """

    flow_tokens_per_s: float
    """The plan's flow."""
    nodes: tuple[str, ...]
    """Machines of the min cut."""
    links: tuple[Edge, ...]
    """Links of the min cut."""
    layers: tuple[LayerRange, ...]
    """Layers whose holders have no capacity left."""
    missing: tuple[LayerRange, ...]
    """Layers that no machine holds."""
    idle: tuple[str, ...]
    """Machines that carry no flow, in cluster order."""
    requests: int
    """Requests whose KV caches fit at once into the layers with the least room."""
    kv_layers: LayerRange
    """The layers with the least room for KV caches; capacity in tokens, not tokens/s."""
    mean_tokens: int
    """Tokens of context that each of these requests is taken to have."""
    spare_tokens_per_s: float = 0.0
    """What the placement would carry beyond the plan's flow, where the plan spares machines or links."""
    busy: dict[str, float] = field(default_factory=dict)
    """Node -> share of the time in which it computes under full load, where it was simulated."""
    kv_use: dict[str, float] = field(default_factory=dict)
    """Node -> mean share of its KV cache in use under full load, where it was simulated."""


def layer_ranges(plan: Plan) -> list[LayerRange]:
    """Maximal ranges of layers with the same holders, in order; they cover the model once."""
    bounds = sorted({0, plan.model.num_layers, *(b for span in plan.placement.values() for b in span)})
    ranges = []
    for start, end in itertools.pairwise(bounds):
        holders = tuple(n for n, (s, e) in plan.placement.items() if s <= start and end <= e)
        capacity = sum(plan.node_throughput_tokens_per_s[n] for n in holders)
        ranges.append(LayerRange(start, end, holders, capacity))
    return ranges


def bottleneck(plan: Plan, *, mean_tokens: int | None = None, simulated: bool = False) -> Bottleneck:
    """The bottleneck of a plan: its min cut, saturated and missing layers, idle machines and KV caches.

    Parameters
    ----------
    plan
        The plan; it may carry no flow.
    mean_tokens
        Context of a request in tokens. None: that of the requests that the plan is for, such as 763 + 232.
    simulated
        Whether to measure under full load how busy machines are and how full their KV caches (some seconds).

    Returns
    -------
    Bottleneck
        The min cut is that of the maximum flow (Helix, section 4.3). It is empty without flow, and where the plan uses
        less than its placement carries: no machine is full then.

    Examples
    --------
    >>> from helix_kit import Cluster, Model, plan
    >>> cluster = Cluster.model_validate({"name": "six", "nodes": [{"gpu": "L4", "count": 6}]})
    >>> six = plan(cluster, Model.preset("llama-30b"), method="proportional")
    >>> bottleneck(six).requests > 0
    True
    """
    ranges = layer_ranges(plan)
    mean_tokens = mean_context(plan) if mean_tokens is None else mean_tokens
    flow = plan.flow_tokens_per_s
    cut = plan.max_flow.min_cut
    carrying = {end for pair in plan.flow_edges for end in pair}
    problem = plan.problem

    def kv_tokens(layers: LayerRange) -> float:
        total = 0.0
        for name in layers.holders if not carrying else carrying.intersection(layers.holders):
            start, end = plan.placement[name]
            total += problem.profile_of(name, start, end).kv_capacity(end - start) / (end - start)
        return total

    most = problem.max_flow(plan.placement, partial_inference=plan.partial_inference).tokens_per_s if flow > 0 else 0.0
    busy, kv_use = _measured(plan) if simulated and flow > 0 else ({}, {})
    tightest = min(ranges, key=kv_tokens)
    room = kv_tokens(tightest)
    return Bottleneck(
        flow_tokens_per_s=flow,
        nodes=tuple(a for a, b in cut if a == b) if flow > 0 else (),
        links=tuple(edge for edge in cut if edge[0] != edge[1] and _is_link(plan, edge)) if flow > 0 else (),
        layers=tuple(r for r in ranges if r.holders and ALMOST * r.capacity_tokens_per_s <= flow),
        missing=tuple(r for r in ranges if not r.holders),
        idle=tuple(n.name for n in plan.cluster.nodes if n.name not in carrying),
        requests=int(room // mean_tokens),
        kv_layers=LayerRange(tightest.start, tightest.end, tightest.holders, room),
        mean_tokens=mean_tokens,
        spare_tokens_per_s=most - flow if most > flow * (1 + 1e-6) else 0.0,
        busy=busy,
        kv_use=kv_use,
    )


def _is_link(plan: Plan, edge: Edge) -> bool:
    """Whether two ends are connected: a file may say that they are not."""
    return plan.cluster.link(*edge).bandwidth_gbps > UNCONNECTED_GBPS


WARMUP_S, MEASURED_S = 30.0, 60.0
"""Simulated seconds of a measurement of how busy replicas are."""


def _measured(plan: Plan) -> tuple[dict[str, float], dict[str, float]]:
    """Share of the time in which each machine computes, and of its KV cache in use, under full load."""
    from helix_kit.simulator import steady_use, whole_run  # numba takes a second to load.
    from helix_kit.workload import Workload
    from helix_kit.workload.named import backlog_size

    if plan.engine is None or plan.engine.execution == "range":
        nodes = steady_use(plan, pairs_of(plan), seed=plan.seed)
    else:
        count = backlog_size(plan, WARMUP_S + MEASURED_S, mean_context(plan))
        load = Workload.offline(count, seed=plan.seed, like=pairs_of(plan) or "azure-conversation")
        nodes = whole_run(plan, load, mode="offline", warmup_s=WARMUP_S, duration_s=MEASURED_S).nodes
    kv_use = {name: use.kv_mean / use.kv_capacity for name, use in nodes.items() if use.kv_capacity}
    return {name: use.busy for name, use in nodes.items()}, kv_use


def explain(plan: Plan, *, mean_tokens: int | None = None, simulated: bool = False) -> str:
    """The bottleneck of a plan as sentences, the most important first.

    Parameters
    ----------
    plan
        The plan; it may carry no flow.
    mean_tokens
        Context of a request in tokens, by which the requests that fit into the KV caches are counted. None: as for
        `bottleneck`.
    simulated
        Whether to measure under full load how busy machines are and how full their KV caches (some seconds).

    Returns
    -------
    str
        One sentence a line.

    Examples
    --------
    >>> from helix_kit import Cluster, Model, plan
    >>> cluster = Cluster.model_validate({"name": "six", "nodes": [{"gpu": "L4", "count": 6}]})
    >>> six = plan(cluster, Model.preset("llama-30b"), method="proportional")
    >>> print(explain(six).splitlines()[1])
    Layers 0-9 are served only by L4-0, 222 tokens/s: all of it is used.
    """
    limit = bottleneck(plan, mean_tokens=mean_tokens, simulated=simulated)
    if limit.flow_tokens_per_s <= 0:
        return "\n".join(_no_flow(plan, limit))
    lines = [
        f"The plan carries {limit.flow_tokens_per_s:,.0f} tokens/s; no plan on this cluster carries more "
        f"than {plan.bound_tokens_per_s:,.0f} ({_gap(plan)})."
    ]
    if plan.served is not None and plan.served.decode_tokens_per_s:
        served = plan.served
        how = "simulated" if served.is_simulated else "predicted, not simulated"
        lines.insert(
            0,
            f"The plan was made for an SLO: {served.goodput_text} ({how})."
            if served.slo
            else f"The plan was made for what it serves: {served.decode_tokens_per_s:,.0f} decode tokens/s "
            f"({how}, {served.mode}, {plan.engine.name if plan.engine else served.execution}).",
        )
    if limit.spare_tokens_per_s:
        lines.append(
            f"Its placement would carry {limit.spare_tokens_per_s:,.0f} tokens/s more: the plan gives some machines "
            "less than they could do."
        )
    for layers in limit.layers[:3]:
        are = layers.agreeing("is", "are")
        together = "together " if len(layers.holders) > 1 else ""
        lines.append(
            f"{layers.words.capitalize()} {are} served only by {_names(layers.holders)}, "
            f"{together}{layers.capacity_tokens_per_s:,.0f} tokens/s: all of it is used."
        )
    if len(limit.layers) > 3:
        others = limit.layers[3:]
        ranges = _names(tuple(layers.words.partition(" ")[2] for layers in others))
        words = others[0].words if len(others) == 1 else f"layers {ranges}"
        lines.append(f"All capacity of {words} is used, too.")
    if limit.links:
        lines += [_link_words(plan, edge) for edge in limit.links[:4]]
        if len(limit.links) > 4:
            lines.append(f"{len(limit.links) - 4} further links of the cut are full.")
    elif limit.nodes and not limit.layers:
        lines.append(f"The min cut is {_names(limit.nodes)}: no route around them has capacity left.")
    lines += _measured_words(limit)
    lines += split_words(plan)
    if limit.idle:
        carry = agreeing(len(limit.idle), "carries", "carry")
        lines.append(f"{_names(limit.idle)} {carry} no flow: what holds the plan back is elsewhere.")
    lines += model_words(plan.model)
    lines.append(
        f"KV caches: {_requests_words(limit)} at once; {limit.kv_layers.words} "
        f"(on {_names(limit.kv_layers.holders)}) {limit.kv_layers.agreeing('has', 'have')} the least room."
    )
    return "\n".join(lines)


def _requests_words(limit: Bottleneck) -> str:
    """How many requests fit."""
    if limit.requests < 1:
        return f"not one request of {limit.mean_tokens:,} tokens fits"
    requests, fit = count_text(limit.requests, "request"), agreeing(limit.requests, "fits", "fit")
    return f"about {requests} of {limit.mean_tokens:,} tokens {fit}"


def _measured_words(limit: Bottleneck) -> list[str]:
    """Which machines the simulator finds busiest, and whose KV caches are fullest."""
    if not limit.busy:
        return []
    top = max(limit.busy.values())
    busiest = tuple(name for name, share in limit.busy.items() if share >= top - 0.02)
    words = [f"Under full load {_names(busiest)} {agreeing(len(busiest), 'is', 'are')} busiest: {top:.0%} of the time."]
    if limit.kv_use:
        most = max(limit.kv_use.values())
        fullest = tuple(name for name, share in limit.kv_use.items() if share >= most - 0.02)
        cause = ", which limits how many requests run at once" if most >= KV_FULL else ""
        words.append(f"KV caches are fullest on {_names(fullest)}: {most:.0%} on average{cause}.")
    return words


KV_FULL = 0.75
"""KV caches count as full on average from here: new requests come in when old ones end."""


def _gap(plan: Plan) -> str:
    if plan.gap < 1e-4:
        return "proven optimal"
    return f"gap {plan.gap:.2%}"


def _names(names: tuple[str, ...]) -> str:
    return join_names(names, at_most=5)


def _link_words(plan: Plan, edge: Edge) -> str:
    source, target = edge
    link = plan.cluster.link(source, target)
    what = "token ids" if COORDINATOR in edge else "activations"
    return (
        f"The link {source} -> {target} ({number(link.bandwidth_gbps)} gbps) is full: it fits "
        f"{plan.max_flow.capacities[edge]:,.0f} tokens/s of {what}."
    )


def _no_flow(plan: Plan, limit: Bottleneck) -> list[str]:
    lines = ["No pipeline covers all layers, so nothing can be served."]
    for layers in limit.missing:
        lines.append(f"{layers.words.capitalize()} {layers.agreeing('is', 'are')} held by no machine.")
    if not limit.missing:
        ends = {end for _, end in plan.placement.values()}
        stuck = sorted(
            e for e in ends if e < plan.model.num_layers and not any(s <= e < t for s, t in plan.placement.values())
        )
        lines += [f"No machine continues at layer {layer}." for layer in stuck]
        if not plan.partial_inference:
            lines.append("Partial inference is off, so a range must begin exactly where another ends.")
    return lines
