"""Pages of KV cache promised to requests, as the coordinator counts them: per worker, whose page pool they are in.

A request is let in only when every stage of its pipeline has pages for its whole life (prompt and all tokens it may
generate), and its pages count as taken until the worker says that they are free again. So a worker never runs dry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from helix_kit.cluster import COORDINATOR
from helix_kit.flow import Edge, Pipeline
from helix_kit.runtime.worker.kv_cache import pages_for

Promise = tuple[int, int]
"""Request and epoch."""


class PageLedger:
    """Pages promised on each live worker; "node" here is a worker, of which a node with several GPUs has several."""

    def __init__(self) -> None:
        self.capacity: dict[str, int] = {}
        self.promised: dict[str, dict[Promise, int]] = {}

    def add_node(self, node: str, pages: int) -> None:
        """A worker with an empty pool has joined."""
        self.capacity[node] = pages
        self.promised[node] = {}

    def drop_node(self, node: str) -> None:
        """A worker is gone, and all its pages."""
        self.capacity.pop(node, None)
        self.promised.pop(node, None)

    def free(self, node: str) -> int:
        """Pages of `node` that nobody has been promised; 0 for a node that is gone."""
        return self.capacity.get(node, 0) - sum(self.promised.get(node, {}).values())

    def has_room(self, node: str, tokens: int, num_layers: int) -> bool:
        """Whether `tokens` of one request fit into `num_layers` layers of `node` now."""
        return pages_for(tokens, num_layers) <= self.free(node)

    def can_hold(self, node: str, tokens: int, num_layers: int) -> bool:
        """Whether `tokens` of one request fit into `num_layers` layers of `node` when nobody else is there."""
        return pages_for(tokens, num_layers) <= self.capacity.get(node, 0)

    def promise(self, request: int, epoch: int, tokens: int, pipeline: Pipeline) -> bool:
        """Promise pages on every stage, or on none: False when a stage lacks them."""
        needed = {stage.node: pages_for(tokens, stage.end - stage.start) for stage in pipeline}
        if any(node not in self.capacity or pages > self.free(node) for node, pages in needed.items()):
            return False
        for node, pages in needed.items():
            self.promised[node][request, epoch] = pages
        return True

    def release(self, node: str, request: int, epoch: int) -> None:
        """The worker has given the pages back."""
        self.promised.get(node, {}).pop((request, epoch), None)

    @property
    def pages_promised(self) -> int:
        """Pages promised on all nodes."""
        return sum(sum(by.values()) for by in self.promised.values())


def can_ever_fit(
    tokens: int,
    links: Iterable[Edge],
    placement: Mapping[str, tuple[int, int]],
    holds: Callable[[str, int, int], bool],
) -> bool:
    """Whether an empty cluster has a pipeline whose every stage holds `tokens` of one request.

    `holds(node, tokens, num_layers)` tells it of the node's last `num_layers` layers.
    """
    successors: dict[str, list[str]] = {}
    for source, target in links:
        successors.setdefault(source, []).append(target)
    reached = {COORDINATOR}
    frontier = [(COORDINATOR, 0)]
    while frontier:
        here, done = frontier.pop()
        for target in successors.get(here, []):
            if target == COORDINATOR:
                return True
            end = placement[target][1]
            if target not in reached and holds(target, tokens, end - done):
                reached.add(target)
                frontier.append((target, end))
    return False
