"""The longest context that some pipeline of a plan can hold: longer requests are rejected at once."""

from __future__ import annotations

from helix_kit.cluster import COORDINATOR
from helix_kit.scheduling import PagedKV
from helix_kit.simulator.ranged.cached_kv import CachedKV
from helix_kit.simulator.setup import Setup


def longest_context_tokens(setup: Setup, kv: PagedKV | CachedKV) -> int:
    """Tokens of context that the pipeline with the most room holds in an empty cluster.

    Nodes are visited in the order of their last layers: a node's room is the largest, over the nodes before it, of the
    smaller of that node's room and its own.
    """
    ends = {name: int(n["start"] + n["layers"]) for name, n in zip(setup.names, setup.compute_nodes, strict=True)}
    widest = dict.fromkeys([*setup.names, COORDINATOR], 0)
    into: dict[str, list[str]] = {}
    for source, target in setup.edges:
        into.setdefault(target, []).append(source)
    for name in [*sorted(setup.names, key=lambda n: ends[n]), COORDINATOR]:
        for source in into.get(name, []):
            room = 1 << 40 if source == COORDINATOR else widest[source]
            if name != COORDINATOR:
                layers = ends[name] - (0 if source == COORDINATOR else ends[source])
                room = min(room, kv.capacity[name] // layers * kv.page_tokens)
            widest[name] = max(widest[name], room)
    return widest[COORDINATOR]
