"""The paths that a flow is made of: pipelines with their rates, the longest path, and links that keep paths short."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from helix_kit.cluster import COORDINATOR
from helix_kit.flow.maximum import Flow
from helix_kit.flow.network import MILLI, Edge, Pipeline, Placement, Stage, can_follow


def decompose(flow: Flow, placement: Placement) -> list[tuple[Pipeline, float]]:
    """The flow as pipelines, each with its rate.

    Each step takes the widest path that is left, so there are at most as many pipelines as links (Ford and Fulkerson).

    Parameters
    ----------
    flow
        A flow of `placement`.
    placement
        Node name -> layer range [start, end).

    Returns
    -------
    list of (Pipeline, float)
        Pipelines with their tokens/s, largest first. The rates add up to the flow's value.

    Examples
    --------
    >>> edges = {("coordinator", "a"): 3.0, ("a", "b"): 3.0, ("b", "coordinator"): 3.0}
    >>> [(pipeline, rate)] = decompose(Flow(3.0, edges, {}, ()), {"a": (0, 5), "b": (4, 8)})
    >>> pipeline[1], rate
    (Stage(node='b', start=5, end=8), 3.0)
    """
    left = {edge: round(f * MILLI) for edge, f in flow.edges.items()}
    # Layer ranges only move forward, so ends in increasing order are a topological order.
    order = sorted(placement, key=lambda n: (placement[n][1], n))
    pipelines: list[tuple[Pipeline, float]] = []
    while True:
        widest: dict[str, tuple[int, str]] = {}
        into: dict[str, list[str]] = {}
        for (source, target), amount in left.items():
            if amount > 0:
                into.setdefault(target, []).append(source)
        for node in [*order, COORDINATOR]:
            for source in into.get(node, []):
                amount = left[source, node]
                if source != COORDINATOR:
                    amount = min(amount, widest.get(source, (0, ""))[0])
                if amount > widest.get(node, (0, ""))[0]:
                    widest[node] = (amount, source)
        if COORDINATOR not in widest:
            break
        amount, node = widest[COORDINATOR]
        path = [COORDINATOR, node]
        while node != COORDINATOR:
            node = widest[node][1]
            path.append(node)
        path.reverse()
        for source, target in pairwise(path):
            left[source, target] -= amount
        pipelines.append((pipeline_of(path[1:-1], placement), amount / MILLI))
    return sorted(pipelines, key=lambda p: -p[1])


def pipeline_of(nodes: Iterable[str], placement: Placement) -> Pipeline:
    """The stages of a path: each node runs the layers that it holds and that the request has not passed yet.

    Parameters
    ----------
    nodes
        Names of the nodes in the order in which a request passes them.
    placement
        Node name -> layer range [start, end).

    Returns
    -------
    Pipeline
        One stage for each node.

    Examples
    --------
    >>> pipeline_of(["a", "b"], {"a": (0, 5), "b": (4, 8)})
    (Stage(node='a', start=0, end=5), Stage(node='b', start=5, end=8))
    """
    stages, done = [], 0
    for node in nodes:
        stages.append(Stage(node, done, placement[node][1]))
        done = placement[node][1]
    return tuple(stages)


def longest_path(flow: Flow, placement: Placement) -> int:
    """The largest number of nodes that a request may pass along links that carry flow.

    Parameters
    ----------
    flow
        A flow of `placement`.
    placement
        Node name -> layer range [start, end).

    Returns
    -------
    int
        Number of nodes; 0 when nothing flows.

    Examples
    --------
    >>> edges = {("coordinator", "a"): 3.0, ("a", "b"): 3.0, ("b", "coordinator"): 3.0}
    >>> longest_path(Flow(3.0, edges, {}, ()), {"a": (0, 5), "b": (4, 8), "c": (0, 8)})
    2
    """
    passed = dict.fromkeys(placement, 1)
    # Layer ranges only move forward, so ends in increasing order are a topological order.
    for node in sorted(placement, key=lambda n: (placement[n][1], n)):
        for (source, target), amount in flow.edges.items():
            if source == node and target in passed and amount > 0:
                passed[target] = max(passed[target], passed[node] + 1)
    used = {target for (_, target), amount in flow.edges.items() if amount > 0 and target != COORDINATOR}
    return max((passed[n] for n in used), default=0)


def short_path_links(
    placement: Placement, num_layers: int, max_nodes: int, *, partial_inference: bool = True
) -> set[Edge] | None:
    """Links such that every path along them passes at most `max_nodes` nodes.

    Kept are the links from the nodes that are d hops from the coordinator to those that are d + 1 hops from it, for d
    up to `max_nodes`.

    Parameters
    ----------
    placement
        Node name -> layer range [start, end).
    num_layers
        Layers of the model.
    max_nodes
        The largest number of nodes on a path.
    partial_inference
        Whether a request may enter a node's range after its first layer.

    Returns
    -------
    set of Edge or None
        The links; None when no path along them reaches the last layer.

    Examples
    --------
    >>> spans = {"a": (0, 4), "b": (2, 6), "c": (4, 8), "d": (4, 8)}
    >>> sorted(short_path_links(spans, 8, 2))
    [('a', 'b'), ('a', 'c'), ('a', 'd'), ('c', 'coordinator'), ('coordinator', 'a'), ('d', 'coordinator')]
    >>> short_path_links(spans, 8, 1)
    """
    hops = {name: 1 for name, (start, _) in placement.items() if start == 0}
    links = {(COORDINATOR, name) for name in hops}
    for depth in range(1, max_nodes + 1):
        for name in [n for n, h in hops.items() if h == depth]:
            end = placement[name][1]
            if end == num_layers:
                links.add((name, COORDINATOR))
            elif depth < max_nodes:
                for other, span in placement.items():
                    if can_follow(end, span, partial_inference) and hops.setdefault(other, depth + 1) == depth + 1:
                        links.add((name, other))
    return links if any(target == COORDINATOR for _, target in links) else None


__all__ = ["decompose", "longest_path", "pipeline_of", "short_path_links"]
