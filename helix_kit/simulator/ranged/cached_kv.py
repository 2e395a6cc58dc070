"""KV pages of the nodes with a prefix cache on each, by the rules of our coordinator (`helix_kit.scheduling.SharedKV`).

Every full block that a request computes stays in the caches, also one whose content no other request has: it takes the
place of others. Content that the workload does not name is like no other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from helix_kit.flow import Pipeline, Stage
from helix_kit.simulator.options import SimulationOptions
from helix_kit.simulator.ranged import cache_rules as rules
from helix_kit.simulator.ranged.cache_state import (
    CACHE,
    CONTENT,
    ENTRY,
    HOLD,
    LEAF,
    LEAF_BITS,
    POOLS,
    RUN,
    SPAN,
    CacheState,
)
from helix_kit.simulator.state import NONE, StateOwner, filled, pool
from helix_kit.workload.prefixes import block_keys
from helix_kit.workload.request import Request


class Contents:
    """What the blocks of a workload's requests contain, as numbers: equal numbers stand for equal content.

    Parameters
    ----------
    requests
        The workload.
    block_tokens
        Tokens of a block.
    """

    def __init__(self, requests: Sequence[Request], block_tokens: int) -> None:
        keys = block_keys(requests, block_tokens)
        self.block_tokens = block_tokens
        self.numbers = keys.keys
        self.records = filled(CONTENT, len(requests), ("holds",))
        """A `CONTENT` for each request."""
        self.records["first_key"], self.records["keys"] = keys.first, keys.blocks
        tokens = np.array([r.input_tokens + r.output_tokens for r in requests], dtype=np.int64)
        unnamed = np.maximum(0, tokens // block_tokens - keys.blocks)
        self.records["own"] = keys.distinct + unnamed.cumsum() - unnamed - keys.blocks
        self.count = keys.distinct + int(unnamed.sum())
        """Different blocks."""
        self.are_shared = keys.distinct < len(keys.keys)
        """Whether two requests have a block in common."""

    @classmethod
    def worth_caching(cls, requests: Sequence[Request], options: SimulationOptions) -> Contents | None:
        """The contents, where a request may find something in a cache; None where none can, or caches are off.

        Only a request that starts again, after a fault, can find what no other request has.
        """
        if not options.batching.prefix_cache or not any(request.prefix for request in requests):
            return None
        contents = cls(requests, options.batching.page_tokens)
        return contents if contents.are_shared or options.faults else None


class CachedKV(StateOwner[CacheState]):
    """As `PagedKV`, with the requests' beginnings shared; requests are known by their place in the workload.

    Parameters
    ----------
    capacity_layer_tokens
        Node -> tokens of KV cache, summed over its layers.
    ends
        Node -> end of its layer range.
    contents
        Those of the workload's requests.
    """

    def __init__(self, capacity_layer_tokens: Mapping[str, int], ends: Mapping[str, int], contents: Contents) -> None:
        self.page_tokens = contents.block_tokens
        self.capacity = {node: tokens // self.page_tokens for node, tokens in capacity_layer_tokens.items()}
        self.free = dict(self.capacity)
        """Node -> pages that can be promised."""
        self._ends = ends
        self._number_of = {node: number for number, node in enumerate(self.capacity)}
        self._span_of: dict[Stage, int] = {}
        self._spans_of: dict[Pipeline, np.ndarray] = {}
        self._nodes_of: dict[int, list[tuple[str, int]]] = {}
        """Request with pages -> name and number of the nodes where it has them."""
        self._at = self._most = 0
        self._hits: list[int] | None = None
        """Blocks of the request that is being routed that each span finds; None: not looked up yet."""
        caches = filled(CACHE, len(self.capacity), ("first_span", "last_span", "first_entry", "last_entry"))
        caches["capacity"] = caches["free"] = list(self.capacity.values())
        contents.records["holds"] = NONE
        leaves = np.zeros((2, 2), dtype=np.int64)
        leaves[1, 1] = NONE
        pools = np.zeros(1, dtype=POOLS)
        for kind in ("hold", "run", "entry"):
            pools[f"free_{kind}"] = NONE
        pools["free_leaf"] = pools["free_leaves"] = 1
        self.state = CacheState(
            caches=caches,
            spans=filled(SPAN, 0),
            holds=filled(HOLD, 0),
            runs=filled(RUN, 0),
            entries=filled(ENTRY, 0),
            contents=contents.records,
            numbers=contents.numbers,
            table=np.zeros((0, (contents.count >> LEAF_BITS) + 1), dtype=np.int32),
            cells=np.zeros((2, LEAF), dtype=np.int32),
            leaves=leaves,
            pools=pools[0],
        )

    def used(self, node: str) -> int:
        """Pages of requests on the node; one that several requests share counts once."""
        return self.capacity[node] - self.free[node]

    def look_up(self, at: int, tokens: int) -> None:
        """Request `at` with a prompt of `tokens` is being routed. Its last token is computed in any case."""
        self._at, self._most, self._hits = at, (tokens - 1) // self.page_tokens, None

    def has_room(self, node: str, tokens: int, num_layers: int) -> bool:
        """Whether the request that is being routed fits into the last `num_layers` layers of the node."""
        pages = -(-tokens // self.page_tokens)
        if pages * num_layers <= self.free[node]:
            return True
        if self._most == 0:
            return False
        end = self._ends[node]
        span = self._span(Stage(node, end - num_layers, end))
        return bool(rules.fits_with_hits(self.packed, span, self._at, self._most, pages))

    def cached_tokens(self, pipeline: Pipeline) -> int:
        """Tokens of the request that is being routed that every stage holds."""
        spans = self._spans(pipeline)
        if self._hits is None or len(self._hits) < len(self._span_of):
            rules.hits_of_spans(self.packed, self._at, self._most)
            self._hits = self.state.spans["hits"][: len(self._span_of)].tolist()
        return min([self._hits[span] for span in spans]) * self.page_tokens

    def reserve(self, at: int, tokens: int, pipeline: Pipeline) -> int | None:
        """Reserve pages for the context of the request; returns the tokens that it finds, None where pages lack."""
        spans, pages, most = self._spans(pipeline), -(-tokens // self.page_tokens), self._most
        self._most, self._hits = 0, None
        self._make_room("holds", "hold", len(spans))
        self._make_room("runs", "run", len(spans) * (most + 1))
        hits = int(rules.reserve(self.packed, at, most, pages, spans))
        if hits == rules.NO_ROOM:
            return None
        self._nodes_of[at] = [(stage.node, self._number_of[stage.node]) for stage in pipeline]
        self._note_free(at)
        return hits * self.page_tokens

    def add_computed(self, at: int, tokens: int) -> None:
        """The request's first `tokens` tokens have been computed on all of its stages."""
        blocks = tokens // self.page_tokens
        self._make_room("runs", "run", len(self._nodes_of.get(at, ())) * (blocks + 1))
        lacking = rules.add_computed(self.packed, at, blocks)
        if lacking > 0:
            self._grow_leaves(int(lacking))
            rules.add_computed(self.packed, at, blocks)

    def release(self, at: int) -> None:
        """The request has left its pipeline, for good or to be started again."""
        self._make_room("entries", "entry", len(self._span_of))
        rules.leave(self.packed, at)
        self._note_free(at)
        self._nodes_of.pop(at, None)

    def lose(self, node: str) -> None:
        """The node's KV cache is gone."""
        rules.lose(self.packed, self._number_of[node])
        self.free[node] = self.capacity[node]

    def _note_free(self, at: int) -> None:
        free = self.state.caches["free"]
        for node, number in self._nodes_of.get(at, ()):
            self.free[node] = int(free[number])

    def _spans(self, pipeline: Pipeline) -> np.ndarray:
        """Numbers of the spans of a pipeline's stages."""
        spans = self._spans_of.get(pipeline)
        if spans is None:
            spans = self._spans_of[pipeline] = np.array([self._span(stage) for stage in pipeline], dtype=np.int64)
        return spans

    def _span(self, stage: Stage) -> int:
        """Number of the span of a stage's layers."""
        number = self._span_of.get(stage)
        if number is None:
            number = self._span_of[stage] = len(self._span_of)
            spans, table = self.state.spans, self.state.table
            if number == len(spans):
                more = max(8, len(spans))
                spans = np.concatenate([spans, filled(SPAN, more)])
                table = np.concatenate([table, np.zeros((more, table.shape[1]), dtype=table.dtype)])
            spans[number]["cache"], spans[number]["next"] = self._number_of[stage.node], NONE
            spans[number]["start"], spans[number]["end"] = stage.start, stage.end
            spans[number]["layers"] = stage.end - stage.start
            self.state = self.state._replace(spans=spans, table=table)
        return number

    def _make_room(self, field: str, kind: str, count: int) -> None:
        """Make sure that `count` records of a kind are free."""
        pools = self.state.pools
        if pools[count_name := f"free_{field}"] >= count:
            return
        records = getattr(self.state, field)
        more = pool(records.dtype, max(count, len(records), 1 << 10), first=len(records))
        more["next"][-1] = pools[f"free_{kind}"]
        pools[f"free_{kind}"] = len(records)
        pools[count_name] += len(more)
        grown: dict[str, Any] = {field: np.concatenate([records, more])}
        self.state = self.state._replace(**grown)

    def _grow_leaves(self, count: int) -> None:
        """Make sure that `count` more leaves are free."""
        pools, cells, leaves = self.state.pools, self.state.cells, self.state.leaves
        old = len(cells)
        more = max(count, old)
        grown, links = np.zeros((old + more, LEAF), dtype=cells.dtype), np.zeros((old + more, 2), dtype=leaves.dtype)
        grown[:old], links[:old] = cells, leaves
        links[old:, 1] = np.arange(old + 1, old + more + 1)
        links[-1, 1] = pools["free_leaf"]
        pools["free_leaf"] = old
        pools["free_leaves"] += more
        self.state = self.state._replace(cells=grown, leaves=links)
