"""KV pages promised to requests, as the coordinator counts them, and whether a request can ever fit.

A request is admitted only when every worker of its pipeline has pages for the request's whole life: its prompt and all
tokens that it may generate. The pages count as taken until the worker reports that they are free again. So a worker
never runs out of pages in the middle of a request.

A request whose answer may be very long is promised pages for some tokens at a time (`PageLedger.extend`). When there
are none for the next ones, it leaves its pipeline, and waits to be started again with the tokens that it has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from helix_kit.cluster import COORDINATOR
from helix_kit.flow import Edge, Pipeline
from helix_kit.runtime.worker.kv_cache import pages_for

Promise = tuple[int, int]
"""Request and epoch."""


class PageLedger:
    """Pages promised on each worker that is up, by the worker's name."""

    def __init__(self) -> None:
        self.capacity: dict[str, int] = {}
        """Worker -> pages of its pool."""
        self.promised: dict[str, dict[Promise, int]] = {}

    def add_worker(self, worker: str, pages: int) -> None:
        """A worker with an empty pool of `pages` has come up."""
        self.capacity[worker] = pages
        self.promised[worker] = {}

    def drop_worker(self, worker: str) -> None:
        """A worker has ended, and its pool with it."""
        self.capacity.pop(worker, None)
        self.promised.pop(worker, None)

    def free(self, worker: str) -> int:
        """Pages of the worker that are promised to no request; 0 for a worker that is not up."""
        return self.capacity.get(worker, 0) - sum(self.promised.get(worker, {}).values())

    def has_room(self, worker: str, tokens: int, num_layers: int) -> bool:
        """Whether `tokens` of one request fit into `num_layers` layers of the worker now."""
        return pages_for(tokens, num_layers) <= self.free(worker)

    def can_hold(self, worker: str, tokens: int, num_layers: int) -> bool:
        """Whether `tokens` of one request fit into `num_layers` layers of the worker when it holds no other request."""
        return pages_for(tokens, num_layers) <= self.capacity.get(worker, 0)

    def promise(self, request: int, epoch: int, tokens: int, pipeline: Pipeline) -> bool:
        """Promise pages on every worker of the pipeline, or on none: False when one of them lacks pages."""
        needed = {stage.node: pages_for(tokens, stage.end - stage.start) for stage in pipeline}
        if any(worker not in self.capacity or pages > self.free(worker) for worker, pages in needed.items()):
            return False
        for worker, pages in needed.items():
            self.promised[worker][request, epoch] = pages
        return True

    def extend(self, request: int, epoch: int, tokens: int, pipeline: Pipeline) -> bool:
        """Promise a running request pages for `tokens` in all. False, and nothing changed, when a worker lacks some."""
        needed = {stage.node: pages_for(tokens, stage.end - stage.start) for stage in pipeline}
        for worker, pages in needed.items():
            have = self.promised.get(worker, {}).get((request, epoch))
            if have is None or pages - have > self.free(worker):
                return False
        for worker, pages in needed.items():
            self.promised[worker][request, epoch] = pages
        return True

    def release(self, worker: str, request: int, epoch: int) -> None:
        """The worker has freed the request's pages."""
        self.promised.get(worker, {}).pop((request, epoch), None)

    @property
    def pages_promised(self) -> int:
        """Pages promised on all workers."""
        return sum(sum(promises.values()) for promises in self.promised.values())


def can_ever_fit(
    tokens: int,
    links: Iterable[Edge],
    placement: Mapping[str, tuple[int, int]],
    holds: Callable[[str, int, int], bool],
) -> bool:
    """Whether some pipeline could hold `tokens` of one request if there were no other requests.

    Parameters
    ----------
    tokens
        Prompt and all tokens that may be generated.
    links
        The links that pipelines may use, from the coordinator and back to it.
    placement
        Node -> layer range.
    holds
        ``holds(node, tokens, num_layers)``: whether they fit into the node's last `num_layers` layers.
    """
    successors: dict[str, list[str]] = {}
    for source, target in links:
        successors.setdefault(source, []).append(target)
    reached = {COORDINATOR}
    frontier = [(COORDINATOR, 0)]
    while frontier:
        here, layers_done = frontier.pop()
        for target in successors.get(here, []):
            if target == COORDINATOR:
                return True
            end = placement[target][1]
            if target not in reached and holds(target, tokens, end - layers_done):
                reached.add(target)
                frontier.append((target, end))
    return False
