"""The flow network of a placement (Helix, section 4.2): the graph, its capacities, stages and pipelines.

Each node of the cluster becomes an edge ``(name, "in") -> (name, "out")``. Its capacity is the tokens/s that the node
serves with the layers it holds. Each usable link becomes an edge whose capacity is bandwidth / bytes per token. The
coordinator is source and sink. Capacities are whole milli-tokens/s, because networkx's push-relabel fails on floats.

>>> from helix_kit.cluster import Cluster
>>> from helix_kit.model import Model
>>> cluster = Cluster.model_validate({"name": "pair", "nodes": [{"gpu": "T4", "count": 2}]})
>>> placement = {"T4-0": (0, 40), "T4-1": (40, 80)}
>>> graph = build_flow_graph(cluster, Model.preset("llama2-70b"), placement, {"T4-0": 12.0, "T4-1": 9.5})
>>> graph.edges[("T4-1", "in"), ("T4-1", "out")]["capacity"]
9500
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import networkx as nx

from helix_kit.cluster import COORDINATOR, Cluster
from helix_kit.model import Model

Placement = Mapping[str, tuple[int, int]]
"""Node name -> layer range [start, end)."""
Edge = tuple[str, str]
"""A link by its ends (``coordinator`` for source and sink); ``(node, node)`` is a node's own capacity."""

SOURCE, SINK = (COORDINATOR, "out"), (COORDINATOR, "in")
MILLI = 1000
"""Capacities are whole numbers of 1 / MILLI tokens/s."""


class Stage(NamedTuple):
    """A node and the layers that it runs for one request.

    Attributes
    ----------
    node
        Name of the node.
    start, end
        It runs layers [start, end).

    Examples
    --------
    >>> Stage("T4-0", 0, 40).end
    40
    """

    node: str
    start: int
    end: int


Pipeline = tuple[Stage, ...]
"""The ordered stages of one request. Together they cover layers 0..L once (invariant 4)."""


class CardCapacity(NamedTuple):
    """Tokens/s that a node's network card carries in each direction.

    Examples
    --------
    >>> CardCapacity(activations=610.0, token_ids=5000000.0).activations
    610.0
    """

    activations: float
    """When each token is sent with its activations."""
    token_ids: float
    """When bare token ids are sent."""


def can_follow(end: int, next_range: tuple[int, int], partial_inference: bool = True) -> bool:
    """Whether a request that has passed layers [0, end) may go on at a node.

    Parameters
    ----------
    end
        The first layer that the request has not passed.
    next_range
        Layer range [start, stop) that the node holds.
    partial_inference
        Whether a request may enter a range after its first layer.

    Returns
    -------
    bool
        ``start <= end < stop`` with partial inference, else ``start == end`` (Helix, section 4.3).

    Examples
    --------
    >>> can_follow(4, (2, 6)), can_follow(4, (2, 6), partial_inference=False), can_follow(6, (2, 6))
    (True, False, False)
    """
    start, stop = next_range
    return start <= end < stop if partial_inference else start == end


def link_capacity_tokens_per_s(
    cluster: Cluster, model: Model, source: str, target: str, passes_per_token: float = 1.0
) -> float:
    """Tokens/s that fit on a link: bandwidth / bytes per token.

    Parameters
    ----------
    cluster, model
        The descriptions.
    source, target
        Node names, or ``coordinator``.
    passes_per_token
        How often a token crosses the link: a little less than 1 where the last token of an answer is counted, which is
        not fed into the model.

    Returns
    -------
    float
        Between nodes each token is sent with its activations; to and from the coordinator only its id is sent.

    Examples
    --------
    >>> cluster = Cluster.model_validate({"name": "pair", "nodes": [{"gpu": "T4", "count": 2}]})
    >>> model = Model.preset("llama2-70b")
    >>> round(link_capacity_tokens_per_s(cluster, model, "T4-0", "T4-1"))
    76285
    """
    size = model.token_bytes if COORDINATOR in (source, target) else model.link_bytes_per_token
    return cluster.link(source, target).bytes_per_s / (size * passes_per_token)


def card_capacity_tokens_per_s(cluster: Cluster, model: Model, passes_per_token: float = 1.0) -> CardCapacity:
    """Tokens/s that a node's network card carries in each direction, whatever links it serves.

    A direction carries bare token ids only if the coordinator is the node's sole neighbour in that direction.
    Otherwise the card is counted as if all its tokens came with activations.

    Parameters
    ----------
    cluster, model
        The descriptions.
    passes_per_token
        As for `link_capacity_tokens_per_s`.

    Returns
    -------
    CardCapacity
        Tokens/s with activations, and of bare token ids.

    Examples
    --------
    >>> cluster = Cluster.model_validate({"name": "pair", "nodes": [{"gpu": "T4", "count": 2}]})
    >>> round(card_capacity_tokens_per_s(cluster, Model.preset("llama2-70b")).activations)
    610277
    """
    card = cluster.network.nic_bytes_per_s / passes_per_token
    return CardCapacity(card / model.link_bytes_per_token, card / model.token_bytes)


def build_flow_graph(
    cluster: Cluster,
    model: Model,
    placement: Placement,
    throughput_tokens_per_s: Mapping[str, float],
    *,
    partial_inference: bool = True,
    links: Iterable[Edge] | None = None,
    passes_per_token: float = 1.0,
) -> nx.DiGraph:
    """The flow network of `placement`, with each node split into an edge of its own capacity.

    Parameters
    ----------
    cluster, model
        The descriptions.
    placement
        Node name -> layer range [start, end).
    throughput_tokens_per_s
        Node name -> tokens/s with the layers it holds.
    partial_inference
        Whether a request may enter a node's range after its first layer.
    links
        Usable links by their ends (``coordinator`` at both ends of a path). None: all links between ranges that
        follow each other.
    passes_per_token
        As for `link_capacity_tokens_per_s`.

    Returns
    -------
    networkx.DiGraph
        Vertices are ``(name, "in")`` and ``(name, "out")``. Edges carry ``capacity`` in whole milli-tokens/s and
        ``edge``, the pair of names that they stand for.

    Examples
    --------
    >>> cluster = Cluster.model_validate({"name": "pair", "nodes": [{"gpu": "T4", "count": 2}]})
    >>> spans, speed = {"T4-0": (0, 40), "T4-1": (40, 80)}, {"T4-0": 12.0, "T4-1": 9.5}
    >>> graph = build_flow_graph(cluster, Model.preset("llama2-70b"), spans, speed)
    >>> [name for _, _, name in graph.edges(data="edge")][-1]
    ('T4-1', 'coordinator')
    """
    card = card_capacity_tokens_per_s(cluster, model, passes_per_token)
    allowed = None if links is None else set(links)
    held = {n.name: placement[n.name] for n in cluster.nodes if n.name in placement}

    def successors(source: str) -> list[str]:
        if source == COORDINATOR:
            return [t for t, span in held.items() if span[0] == 0]
        end = held[source][1]
        targets = [t for t, span in held.items() if t != source and can_follow(end, span, partial_inference)]
        return targets + ([COORDINATOR] if end == model.num_layers else [])

    pairs = [(s, t) for s in [COORDINATOR, *held] for t in successors(s) if allowed is None or (s, t) in allowed]
    sources: dict[str, set[str]] = {name: set() for name in [COORDINATOR, *held]}
    targets: dict[str, set[str]] = {name: set() for name in [COORDINATOR, *held]}
    for source, target in pairs:
        sources[target].add(source)
        targets[source].add(target)
    graph = nx.DiGraph()
    graph.add_nodes_from([SOURCE, SINK])
    for name in held:
        card_in = card.token_ids if sources[name] == {COORDINATOR} else card.activations
        card_out = card.token_ids if targets[name] == {COORDINATOR} else card.activations
        capacity = min(throughput_tokens_per_s[name], card_in, card_out)
        graph.add_edge((name, "in"), (name, "out"), capacity=int(capacity * MILLI), edge=(name, name))
    for source, target in pairs:
        capacity = int(link_capacity_tokens_per_s(cluster, model, source, target, passes_per_token) * MILLI)
        graph.add_edge((source, "out"), (target, "in"), capacity=capacity, edge=(source, target))
    return graph


__all__ = [
    "MILLI",
    "SINK",
    "SOURCE",
    "CardCapacity",
    "Edge",
    "Pipeline",
    "Placement",
    "Stage",
    "build_flow_graph",
    "can_follow",
    "card_capacity_tokens_per_s",
    "link_capacity_tokens_per_s",
]
