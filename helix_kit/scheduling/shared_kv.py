"""KV pages of all workers where requests share prefixes: what a request finds, needs, leaves and gives back.

This is the accounting of the runtime's coordinator. The simulator has the same rules compiled, and a test holds the two
together, so that both find the same hits and evict the same blocks. A request begins after the tokens that every stage
of its pipeline holds: the shortest hit of its stages.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from helix_kit.flow import Pipeline
from helix_kit.scheduling.kv_budget import PAGE_TOKENS
from helix_kit.scheduling.page_store import AnyStore, RequestPages
from helix_kit.scheduling.shared_pages import SharedPages
from helix_kit.scheduling.windowed_blocks import EMPTY, NOTHING, Keep

Attempt = tuple[int, int]
"""Request, and the number of its start (epoch)."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """What an admitted request finds, and what had to go for it.

    Examples
    --------
    >>> Admitted(2).hit_blocks
    2
    """

    hit_blocks: int
    """Leading blocks that every stage holds: the request begins after them."""
    shared: dict[str, np.ndarray] = field(default_factory=dict)
    """Worker -> owners of these blocks there: (request, epoch, place in that request), shape (blocks, 3)."""
    evicted: dict[str, np.ndarray] = field(default_factory=dict)
    """Worker -> owners of the blocks that were evicted there."""


class SharedKV:
    """The pages of all workers.

    Parameters
    ----------
    page_tokens
        Tokens of one layer in a page.

    Examples
    --------
    >>> from helix_kit.flow import Stage
    >>> kv, way = SharedKV(), (Stage("a", 0, 2),)
    >>> kv.add_worker("a", 20)
    >>> prompt = np.array([4, 5])                                # two full blocks, 32 tokens
    >>> kv.admit((1, 0), 40, way).hit_blocks
    0
    >>> kv.add_computed((1, 0), prompt).tolist()
    [4, 5]
    >>> kv.look_up(prompt)
    >>> kv.admit((2, 0), 40, way).hit_blocks, kv.free("a")
    (2, 12)
    """

    def __init__(self, *, page_tokens: int = PAGE_TOKENS) -> None:
        self.page_tokens = page_tokens
        self.workers: dict[str, AnyStore] = {}
        self._holds: dict[Attempt, dict[str, RequestPages]] = {}
        self._wanted, self._keepable = EMPTY, 0
        self._found: dict[tuple[str, int, int], int] = {}

    def look_up(self, blocks: np.ndarray, keepable: int = 0) -> None:
        """A request with these blocks is being routed: `has_room`, `wanted_hits` and `admit` are asked for it.

        Parameters
        ----------
        blocks
            Numbers of its full blocks, except one that holds its last token, which is always computed.
        keepable
            How many of its leading blocks others could use, known or not.
        """
        self._wanted, self._keepable = blocks, keepable
        self._found.clear()

    def wanted_hits(self, pipeline: Pipeline) -> int:
        """How many leading blocks of the request that is being routed every stage of the pipeline holds."""
        hits = len(self._wanted)
        for stage in pipeline:
            key = (stage.node, stage.start, stage.end)
            if hits and key not in self._found:
                self._found[key] = self.hit_blocks(self._wanted, (stage,))
            hits = min(hits, self._found.get(key, 0))
        if hits and self._has_windows(pipeline):
            hits = self.hit_blocks(self._wanted[:hits], pipeline)
        return hits

    def add_worker(self, worker: str, pages: int, windowed: AnyStore | None = None) -> None:
        """A worker with an empty pool of `pages` has come up; `windowed` counts them where layers have windows."""
        self.drop_worker(worker)
        self.workers[worker] = windowed or SharedPages(pages, page_tokens=self.page_tokens)

    def drop_worker(self, worker: str) -> AnyStore | None:
        """A worker has ended, and its pool with it. Returns what it held."""
        for holds in self._holds.values():
            holds.pop(worker, None)
        self._holds = {attempt: holds for attempt, holds in self._holds.items() if holds}
        return self.workers.pop(worker, None)

    def free(self, worker: str) -> int:
        """Pages of the worker that can be promised; 0 for a worker that is not there."""
        return self.workers[worker].free if worker in self.workers else 0

    def used(self, worker: str) -> int:
        """Pages of requests on the worker; a page that several share counts once, one of an idle block does not."""
        return self.workers[worker].used

    @property
    def capacity(self) -> dict[str, int]:
        """Worker -> its pages."""
        return {name: pages.capacity for name, pages in self.workers.items()}

    def holds(self, worker: str, attempt: Attempt) -> RequestPages | None:
        """The request's pages on the worker."""
        return self._holds.get(attempt, {}).get(worker)

    def keeps(self, worker: str, attempt: Attempt) -> Keep:
        """Blocks of the request whose pages in layers with windows the worker must keep for others."""
        hold = self.holds(worker, attempt)
        return NOTHING if hold is None else hold.keep

    # ---- a request's life ----------------------------------------------------------------------------------------

    def hit_blocks(self, blocks: np.ndarray, pipeline: Pipeline) -> int:
        """How many of the leading `blocks` every stage of the pipeline holds."""
        hits, before = len(blocks), -1
        while hits != before:
            before = hits
            for stage in pipeline:
                if hits == 0 or stage.node not in self.workers:
                    return 0
                hits = len(self.workers[stage.node].find(blocks[:hits], stage.start, stage.end))
            if not self._has_windows(pipeline):
                break
            # A request may not be able to begin after fewer blocks on a stage that was asked for more of them.
        return hits

    def _has_windows(self, pipeline: Pipeline) -> bool:
        return any(stage.node in self.workers and self.workers[stage.node].has_windows for stage in pipeline)

    def has_room(self, worker: str, tokens: int, start: int, end: int) -> bool:
        """Whether the request that is being routed, with a context of `tokens`, fits into layers [start, end)."""
        return worker in self.workers and self.workers[worker].has_room(tokens, start, end, self._wanted)

    def admit(self, attempt: Attempt, tokens: int, pipeline: Pipeline) -> Admitted | None:
        """Promise a request pages for `tokens` on every stage; None, and nothing promised, where a stage lacks them.

        Parameters
        ----------
        attempt
            The request, and the number of its start.
        tokens
            Tokens of its context for which it needs pages.
        pipeline
            Its stages.
        """
        blocks, hits, keepable = self._wanted, self.wanted_hits(pipeline), self._keepable
        self.look_up(EMPTY)
        # Where shared blocks have more layers than the stage, a request may fit only without them.
        for count in (hits, 0) if hits else (0,):
            if all(
                stage.node in self.workers
                and self.workers[stage.node].fits(tokens, stage.start, stage.end, blocks[:count])
                for stage in pipeline
            ):
                break
        else:
            return None
        holds, admitted = self._holds.setdefault(attempt, {}), Admitted(count)
        for stage in pipeline:
            pages = self.workers[stage.node]
            hold = pages.promise(tokens, stage.start, stage.end, blocks[:count], keepable=keepable, wanted=blocks)
            holds[stage.node], admitted.shared[stage.node] = hold, hold.shared
            gone = pages.evict()
            if len(gone):
                admitted.evicted[stage.node] = gone
        return admitted

    def extend(self, attempt: Attempt, tokens: int, pipeline: Pipeline) -> dict[str, np.ndarray] | None:
        """Promise a request pages for `tokens` in all: worker -> owners of evicted blocks. None where a worker lacks
        pages; then nothing has changed."""
        holds = self._holds.get(attempt, {})
        nodes = [stage.node for stage in pipeline]
        if any(node not in holds or node not in self.workers for node in nodes):
            return None
        if any(self.workers[node].more_pages(holds[node], tokens) > self.workers[node].free for node in nodes):
            return None
        for node in nodes:
            self.workers[node].extend(holds[node], tokens)
        evicted = {node: self.workers[node].evict() for node in nodes}
        return {worker: owners for worker, owners in evicted.items() if len(owners)}

    def clear(self) -> dict[str, np.ndarray]:
        """Evict all blocks that no request uses. Returns worker -> owners of its blocks."""
        evicted = {worker: pages.evict(all_idle=True) for worker, pages in self.workers.items()}
        return {worker: owners for worker, owners in evicted.items() if len(owners)}

    def add_computed(self, attempt: Attempt, blocks: np.ndarray) -> np.ndarray:
        """The request's first ``len(blocks)`` blocks have been computed on all of its stages: others may use them.

        Returns the numbers of those that were not known, once for each stage.
        """
        holds = self._holds.get(attempt, {})
        return np.concatenate(
            [EMPTY, *(self.workers[w].add_blocks(hold, blocks, attempt) for w, hold in holds.items())]
        )

    def advance(self, attempt: Attempt, position: int) -> None:
        """The request computes the token at `position` next: blocks before its window are no longer in use."""
        for worker, hold in self._holds.get(attempt, {}).items():
            self.workers[worker].advance(hold, position)

    def leave(self, attempt: Attempt) -> dict[str, np.ndarray]:
        """The request leaves its pipeline: what it shares stays in the caches, idle where no other request uses it.

        Returns worker -> places of the blocks that the request itself has made known there.
        """
        kept = {}
        for worker, hold in self._holds.get(attempt, {}).items():
            self.workers[worker].leave(hold)
            kept[worker], hold.own = hold.own, EMPTY
        return kept

    def release(self, worker: str, attempt: Attempt) -> None:
        """The worker has freed the request's own pages. Nothing to do for a request that has none there."""
        holds = self._holds.get(attempt, {})
        hold = holds.pop(worker, None)
        if hold is not None:
            pages = self.workers[worker]
            pages.leave(hold)
            pages.release(hold)
        if attempt in self._holds and not holds:
            del self._holds[attempt]

    def release_all(self, attempt: Attempt) -> None:
        """The request has left all of its workers."""
        for worker in list(self._holds.get(attempt, {})):
            self.release(worker, attempt)
