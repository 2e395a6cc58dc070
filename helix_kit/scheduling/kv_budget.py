"""KV cache reserved by requests: by expectation, as in the paper's scheduler, or in pages, as in our runtime.

A node's KV capacity is given in layer-tokens: tokens of context summed over the layers it holds.
"""

from __future__ import annotations

from collections.abc import Mapping

from helix_kit.flow import Pipeline
from helix_kit.scheduling.policy import Topology
from helix_kit.typical_request import PUBLISHED_OUTPUT_TOKENS
from helix_kit.workload.request import Request

PAGE_TOKENS = 16
"""A page holds the keys and values of 16 tokens in one layer."""


class ExpectedKV:
    """The published estimate of KV use (Helix, section 5.2).

    A request is expected to need E = int(input + 240 r) tokens in each layer, with r = `output_ratio`. A node has room
    when holding the request in all its layers leaves at least 1 - `high_water` of its capacity free. An admitted
    request reserves only the layers that its pipeline uses.

    Parameters
    ----------
    topology
        Nodes and their KV capacities.
    high_water
        Share of a node's capacity that may be reserved.
    output_ratio
        r.

    Examples
    --------
    >>> from helix_kit.scheduling import Topology
    >>> topology = Topology(2, {"a": (0, 2), "b": (0, 2)},
    ...                     {"coordinator": (("a", 3.0), ("b", 1.0)), "a": (("coordinator", 3.0),),
    ...                      "b": (("coordinator", 1.0),)}, {"a": 4000, "b": 4000})
    >>> from helix_kit.workload.request import Request
    >>> ExpectedKV(topology, output_ratio=0.5).expected_tokens(Request(0, 0.0, 100, 50))
    220
    """

    def __init__(self, topology: Topology, *, high_water: float = 0.9, output_ratio: float = 0.6) -> None:
        self.topology, self.high_water, self.output_ratio = topology, high_water, output_ratio
        self.free = dict(topology.kv_capacity_layer_tokens)
        self._held: dict[int, list[tuple[str, int]]] = {}

    def expected_tokens(self, request: Request) -> int:
        """Context that the request is expected to need in each layer."""
        return int(request.input_tokens + PUBLISHED_OUTPUT_TOKENS * self.output_ratio)

    def has_room(self, node: str, request: Request) -> bool:
        """Whether the node may be given the request."""
        start, end = self.topology.placement[node]
        left = self.free[node] - self.expected_tokens(request) * (end - start)
        return left >= (1 - self.high_water) * self.topology.kv_capacity_layer_tokens[node]

    def reserve(self, request: Request, pipeline: Pipeline) -> None:
        """Subtract the request's expectation on every stage."""
        tokens = self.expected_tokens(request)
        held = [(stage.node, tokens * (stage.end - stage.start)) for stage in pipeline]
        for node, amount in held:
            self.free[node] -= amount
        self._held[request.id] = held

    def release(self, request: Request) -> None:
        """Release what the request has reserved, if anything."""
        for node, amount in self._held.pop(request.id, ()):
            self.free[node] += amount

    def bottleneck_use(self) -> float:
        """Reserved share of the KV cache of the fullest layer, over all nodes that hold it."""
        capacity, placement = self.topology.kv_capacity_layer_tokens, self.topology.placement
        free = [0.0] * self.topology.num_layers
        total = [0.0] * self.topology.num_layers
        for node, (start, end) in placement.items():
            free_share, total_share = self.free[node] / (end - start), capacity[node] / (end - start)
            for layer in range(start, end):
                free[layer] += free_share
                total[layer] += total_share
        return max(1 - f / t if t else 1.0 for f, t in zip(free, total, strict=True))


class PagedKV:
    """Exact accounting in pages: a request reserves the pages of its whole context on every stage.

    So workers never run out of pages, and no request is evicted.

    Parameters
    ----------
    capacity_layer_tokens
        Node -> tokens of KV cache, summed over its layers.
    page_tokens
        Tokens of one layer in a page.

    Examples
    --------
    >>> kv = PagedKV({"a": 320})
    >>> kv.pages(tokens=17, num_layers=2), kv.has_room("a", tokens=100, num_layers=2)
    (4, True)
    """

    def __init__(self, capacity_layer_tokens: Mapping[str, int], *, page_tokens: int = PAGE_TOKENS) -> None:
        self.page_tokens = page_tokens
        self.capacity = {node: tokens // page_tokens for node, tokens in capacity_layer_tokens.items()}
        self.free = dict(self.capacity)
        self._held: dict[int, list[tuple[str, int]]] = {}

    def pages(self, tokens: int, num_layers: int) -> int:
        """Pages for `tokens` of context in `num_layers` layers."""
        return -(-tokens // self.page_tokens) * num_layers

    def has_room(self, node: str, tokens: int, num_layers: int) -> bool:
        """Whether the node's free pages hold `tokens` of context in `num_layers` layers."""
        return self.pages(tokens, num_layers) <= self.free[node]

    def reserve(self, request: Request, pipeline: Pipeline) -> bool:
        """Reserve the pages of the whole context on every stage, or none and return False where some are missing."""
        tokens = request.input_tokens + request.output_tokens
        need = [(stage.node, self.pages(tokens, stage.end - stage.start)) for stage in pipeline]
        if any(pages > self.free[node] for node, pages in need):
            return False
        for node, pages in need:
            self.free[node] -= pages
        self._held[request.id] = need
        return True

    def release(self, request: Request) -> None:
        """Release the request's pages, if it has any."""
        for node, pages in self._held.pop(request.id, ()):
            self.free[node] += pages

    def used(self, node: str) -> int:
        """Reserved pages of `node`."""
        return self.capacity[node] - self.free[node]
