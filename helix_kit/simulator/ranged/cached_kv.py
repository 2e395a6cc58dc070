"""KV pages of the nodes with a prefix cache on each, as our coordinator counts them (`helix_kit.scheduling.SharedKV`).

Every full block that a request computes stays in the caches, also one whose content no other request has: it takes the
place of others. Content that the workload does not name is like no other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from helix_kit.flow import Pipeline
from helix_kit.scheduling.shared_kv import SharedKV
from helix_kit.scheduling.shared_pages import EMPTY
from helix_kit.workload.prefixes import block_keys
from helix_kit.workload.request import Request


class CachedKV:
    """As `PagedKV`, with the requests' beginnings shared; requests are known by their place in the workload.

    Parameters
    ----------
    capacity_layer_tokens
        Node -> tokens of KV cache, summed over its layers.
    ends
        Node -> end of its layer range.
    blocks
        The contents of the workload's requests.
    """

    def __init__(self, capacity_layer_tokens: Mapping[str, int], ends: Mapping[str, int], blocks: Blocks) -> None:
        self.page_tokens = blocks.tokens
        self._ends, self._blocks = ends, blocks
        self._kv = SharedKV(page_tokens=self.page_tokens)
        for node, tokens in capacity_layer_tokens.items():
            self._kv.add_worker(node, tokens // self.page_tokens)
        self.capacity = self._kv.capacity

    @property
    def free(self) -> dict[str, int]:
        """Node -> pages that can be promised."""
        return {node: self._kv.free(node) for node in self.capacity}

    def used(self, node: str) -> int:
        """Pages of requests on the node; one that several requests share counts once."""
        return self._kv.used(node)

    def look_up(self, at: int, tokens: int) -> None:
        """Request `at` with a context of `tokens` is being routed. Its last token is computed in any case."""
        self._kv.look_up(self._blocks.known(at, (tokens - 1) // self.page_tokens))

    def has_room(self, node: str, tokens: int, num_layers: int) -> bool:
        """Whether the request that is being routed fits into the last `num_layers` layers of the node."""
        end = self._ends[node]
        return self._kv.has_room(node, tokens, end - num_layers, end)

    def cached_tokens(self, pipeline: Pipeline) -> int:
        """Tokens of the request that is being routed that every stage holds."""
        return self._kv.wanted_hits(pipeline) * self.page_tokens

    def reserve(self, at: int, tokens: int, pipeline: Pipeline) -> int | None:
        """Reserve pages for the context of the request; returns the tokens that it finds, None where pages lack."""
        admitted = self._kv.admit((at, 0), tokens, pipeline)
        if admitted is None:
            return None
        for node in admitted.evicted:
            self._blocks.evicted(self._kv.workers[node].take_evicted())
        return admitted.hit_blocks * self.page_tokens

    def add_computed(self, at: int, tokens: int) -> None:
        """The request's first `tokens` tokens have been computed on all of its stages."""
        self._blocks.held(self._kv.add_computed((at, 0), self._blocks.all(at, tokens // self.page_tokens)))

    def release(self, at: int, *, has_ended: bool) -> None:
        """The request has left its pipeline, for good or to be started again."""
        self._kv.leave((at, 0))
        self._kv.release_all((at, 0))
        if has_ended:
            self._blocks.forget(at)

    def lose(self, node: str) -> None:
        """The node's KV cache is gone."""
        pages = self._kv.drop_worker(node)
        if pages is not None:
            self._blocks.evicted(pages.held_blocks())
        self._kv.add_worker(node, self.capacity[node])


class Blocks:
    """Numbers of the blocks of a workload's requests.

    Content that the workload names has the same number wherever it comes. Other blocks get one when they are computed,
    and it is used again when no node holds the block any more.

    Parameters
    ----------
    requests
        The workload.
    tokens
        Tokens of a block.
    """

    def __init__(self, requests: Sequence[Request], tokens: int) -> None:
        self.tokens = tokens
        self._keys = block_keys(requests, tokens)
        self._own: dict[int, np.ndarray] = {}
        """Request -> numbers of its blocks that the workload does not name."""
        self._holders = np.zeros(0, dtype=np.int64)
        """How many stages hold each block that the workload does not name, from `distinct` on; one more while its
        request may ask for it."""
        self._free: list[int] = []

    def known(self, at: int, count: int) -> np.ndarray:
        """Numbers of the first `count` blocks of the request, as far as it has any."""
        first, named = int(self._keys.first[at]), int(self._keys.blocks[at])
        numbers = self._keys.keys[first : first + min(count, named)]
        if count > named and at in self._own:
            numbers = np.concatenate([numbers, self._own[at][: count - named]])
        return numbers

    def all(self, at: int, count: int) -> np.ndarray:
        """Numbers of the first `count` blocks of the request; those without get one."""
        more = count - int(self._keys.blocks[at]) - len(self._own.get(at, ()))
        if more > 0:
            if len(self._free) < more:
                size = max(1024, more, len(self._holders))
                first = self._keys.distinct + len(self._holders)
                self._free.extend(range(first + size - 1, first - 1, -1))
                self._holders = np.concatenate([self._holders, np.zeros(size, dtype=np.int64)])
            taken = np.array([self._free.pop() for _ in range(more)], dtype=np.int64)
            self._own[at] = np.concatenate([self._own.get(at, EMPTY), taken])
            self.held(taken)
        return self.known(at, count)

    def held(self, numbers: np.ndarray) -> None:
        """One more stage holds each of these blocks."""
        own = numbers[numbers >= self._keys.distinct] - self._keys.distinct
        np.add.at(self._holders, own, 1)

    def evicted(self, numbers: np.ndarray) -> None:
        """One stage less holds each of these blocks."""
        own = numbers[numbers >= self._keys.distinct] - self._keys.distinct
        np.subtract.at(self._holders, own, 1)
        self._free.extend((np.unique(own[self._holders[own] == 0]) + self._keys.distinct).tolist())

    def forget(self, at: int) -> None:
        """The request has ended: it will not ask for its blocks again."""
        if at in self._own:
            self.evicted(self._own.pop(at))
