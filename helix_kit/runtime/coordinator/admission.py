"""KV pages promised to requests, as the coordinator counts them, and whether a request can ever fit.

A request is admitted only when every worker of its pipeline has pages for the request's whole life: its prompt and all
tokens that it may generate. So a worker never runs out of pages in the middle of a request. The pages can be promised
again as soon as the request leaves its pipeline, because a worker hears of that before it hears of the next request.
Only rows that another worker sends may come sooner. They wait for the message (`Worker._with_pages`).

A request whose answer may be very long is promised pages for some tokens at a time (`PageLedger.extend`). When there
are none for the next ones, it leaves its pipeline, and waits to be started again with the tokens that it has.

With a prefix cache, the coordinator alone decides what is shared, kept and evicted (`scheduling.SharedKV`), because it
alone knows all stages of a pipeline: a request begins after the blocks that every stage holds. The workers are told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from helix_kit.cluster import COORDINATOR
from helix_kit.flow import Edge, Pipeline
from helix_kit.runtime.coordinator.block_numbers import BlockNumbers
from helix_kit.runtime.transport.messages import BlockRun
from helix_kit.runtime.worker.kv_cache import PAGE_TOKENS
from helix_kit.scheduling.shared_kv import SharedKV
from helix_kit.scheduling.windowed_blocks import EMPTY, WITHOUT_WINDOW, Keep
from helix_kit.scheduling.windowed_pages import WindowedPages


class PageLedger:
    """Pages promised on each worker that is up, by the worker's name, and the blocks that requests may share there."""

    def __init__(self) -> None:
        self.chunk_tokens = 1
        """Rows of one request that a step takes at most."""
        self._kv = SharedKV(page_tokens=PAGE_TOKENS)
        self._numbers = BlockNumbers()
        self._evicted: dict[str, list[BlockRun]] = {}

    def add_worker(self, worker: str, pages: int, start: int = 0, windows: Sequence[int] = ()) -> None:
        """A worker with an empty pool of `pages` has come up.

        `windows` are those of its layers, from `start` on, where it returns pages once they have passed.
        """
        self.drop_worker(worker)
        windowed = None
        if any(windows):
            windowed = WindowedPages(pages, start, windows, chunk_tokens=self.chunk_tokens, page_tokens=PAGE_TOKENS)
        self._kv.add_worker(worker, pages, windowed)

    def drop_worker(self, worker: str) -> None:
        """A worker has ended, and its pool with it."""
        pages = self._kv.drop_worker(worker)
        self._evicted.pop(worker, None)
        if pages is not None:
            self._numbers.no_longer_held(pages.held_blocks())

    def free(self, worker: str) -> int:
        """Pages of the worker that can be promised; 0 for a worker that is not up."""
        return self._kv.free(worker)

    def has_room(self, worker: str, tokens: int, start: int, end: int) -> bool:
        """Whether `tokens` of the request that is being routed fit into layers [start, end) of the worker now."""
        return self._kv.has_room(worker, tokens, start, end)

    def can_hold(self, worker: str, tokens: int, start: int, end: int) -> bool:
        """Whether `tokens` of one request fit into layers [start, end) of the worker when it holds no other request."""
        pages = self._kv.workers.get(worker)
        return pages is not None and pages.holds_when_empty(tokens, start, end)

    def look_up(self, hashes: Sequence[bytes], keepable: int = 0) -> None:
        """A request with these blocks is being routed: `has_room`, `cached_tokens` and `promise` are asked for it.

        Others could use `keepable` of its leading blocks, known or not.
        """
        self._kv.look_up(self._numbers.known(hashes) if hashes else EMPTY, keepable)

    def keeps(self, worker: str, request: int, epoch: int) -> Keep:
        """Blocks of a request that was promised pages whose pages in layers with windows the worker must not return."""
        return self._kv.keeps(worker, (request, epoch))

    def advance(self, request: int, epoch: int, position: int) -> None:
        """The request computes the token at `position` next: layers with windows do not see the first ones any more."""
        if position % PAGE_TOKENS == 0 and self._has_windows:
            self._kv.advance((request, epoch), position)

    @property
    def _has_windows(self) -> bool:
        return any(pages.has_windows for pages in self._kv.workers.values())

    def cached_tokens(self, pipeline: Pipeline) -> int:
        """Tokens of the request that is being routed that every worker of the pipeline holds."""
        return self._kv.wanted_hits(pipeline) * PAGE_TOKENS

    def promise(self, request: int, epoch: int, tokens: int, pipeline: Pipeline) -> dict[str, list[BlockRun]] | None:
        """Promise pages on every worker of the pipeline, or on none: None when one of them lacks pages.

        Returns worker -> the blocks there with which the request begins; they are equally many on all workers.
        """
        admitted = self._kv.admit((request, epoch), tokens, pipeline)
        if admitted is None:
            return None
        self._note_evicted(admitted.evicted)
        return {worker: runs_of(owners) for worker, owners in admitted.shared.items()}

    def extend(self, request: int, epoch: int, tokens: int, pipeline: Pipeline) -> bool:
        """Promise a running request pages for `tokens` in all. False, and nothing changed, when a worker lacks some."""
        evicted = self._kv.extend((request, epoch), tokens, pipeline)
        if evicted is None:
            return False
        self._note_evicted(evicted)
        return True

    def _note_evicted(self, evicted: Mapping[str, np.ndarray]) -> None:
        for worker, owners in evicted.items():
            self._evicted.setdefault(worker, []).extend(runs_of(owners))
            self._numbers.no_longer_held(self._kv.workers[worker].take_evicted())

    def clear(self) -> None:
        """Evict all blocks that no request uses."""
        self._note_evicted(self._kv.clear())

    def take_evicted(self) -> dict[str, list[BlockRun]]:
        """Worker -> the blocks that it must be told to evict; those of the calls since the last time."""
        evicted, self._evicted = self._evicted, {}
        return evicted

    def add_computed(self, request: int, epoch: int, hashes: Sequence[bytes]) -> None:
        """The request's first blocks have been computed on all of its workers: others may use them from now on."""
        if not hashes and not self._has_windows:
            return
        numbers = self._numbers.of(hashes)
        self._numbers.held(self._kv.add_computed((request, epoch), numbers))
        self._numbers.forget_unheld(hashes)

    def leave(self, request: int, epoch: int) -> dict[str, list[BlockRun]]:
        """The request leaves its pipeline, and its pages are free, but for blocks that are kept for others.

        Returns worker -> these blocks.
        """
        kept = {}
        for worker, places in self._kv.leave((request, epoch)).items():
            hold = self._kv.holds(worker, (request, epoch))
            partly = EMPTY if hold is None else hold.without_window
            whole = np.setdiff1d(places, partly) if len(partly) else places
            kept[worker] = [BlockRun(request, epoch, *run) for run in _runs(whole)]
            kept[worker] += [BlockRun(request, epoch, *run, WITHOUT_WINDOW) for run in _runs(partly)]
        self._kv.release_all((request, epoch))
        return kept

    @property
    def pages_promised(self) -> int:
        """Pages promised on all workers; one that several requests share counts once."""
        return sum(pages.used for pages in self._kv.workers.values())


def runs_of(owners: np.ndarray) -> list[BlockRun]:
    """Blocks by their owners (request, epoch, place, perhaps part), a row each, as runs that follow each other.

    >>> runs_of(np.array([[7, 0, 2], [7, 0, 3], [9, 1, 4]]))
    [BlockRun(request=7, epoch=0, first=2, count=2, part=0), BlockRun(request=9, epoch=1, first=4, count=1, part=0)]
    """
    runs: list[BlockRun] = []
    if len(owners):
        breaks = np.flatnonzero((np.diff(owners, axis=0) != (0, 0, 1, 0)[: owners.shape[1]]).any(axis=1)) + 1
        for run in np.split(owners, breaks):
            request, epoch, first, *part = run[0].tolist()
            runs.append(BlockRun(request, epoch, first, len(run), *part))
    return runs


def _runs(places: np.ndarray) -> list[tuple[int, int]]:
    """(first, count) of each run of numbers that follow each other."""
    parts = np.split(places, np.flatnonzero(np.diff(places) != 1) + 1) if len(places) else []
    return [(int(part[0]), len(part)) for part in parts]


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
