"""How much KV cache is spoken for: by expectation, as the paper's scheduler counts, or by pages, as ours does.

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
    """The published estimate (section 5.2 of the paper): E = int(input + 240 r) tokens a request and layer.

    A node is full when holding the request in all its layers would leave less than (1 - high_water) of its
    capacity free. What is subtracted on admission are only the layers that the pipeline uses.
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
        """Give back what the request holds; nothing happens if it holds nothing."""
        for node, amount in self._held.pop(request.id, ()):
            self.free[node] += amount

    def bottleneck_use(self) -> float:
        """Largest share of KV cache spoken for in any layer, over the nodes that hold it."""
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
    """Exact accounting in pages: a request sets aside the pages of its whole context on every stage.

    Workers then never run dry, so nothing is evicted or recomputed for want of memory.
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

    def could_ever_hold(self, pipeline: Pipeline, tokens: int) -> bool:
        """Whether an otherwise empty cluster has the pages."""
        return all(self.pages(tokens, s.end - s.start) <= self.capacity[s.node] for s in pipeline)

    def reserve(self, request: Request, pipeline: Pipeline) -> bool:
        """Set aside the pages of the whole context on every stage; False, and nothing changes, if some lack."""
        tokens = request.input_tokens + request.output_tokens
        need = [(stage.node, self.pages(tokens, stage.end - stage.start)) for stage in pipeline]
        if any(pages > self.free[node] for node, pages in need):
            return False
        for node, pages in need:
            self.free[node] -= pages
        self._held[request.id] = need
        return True

    def release(self, request: Request) -> None:
        """Free the request's pages; nothing happens if it holds none."""
        for node, pages in self._held.pop(request.id, ()):
            self.free[node] += pages

    def used(self, node: str) -> int:
        """Pages of `node` that are set aside."""
        return self.capacity[node] - self.free[node]
