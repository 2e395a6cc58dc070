"""The KV pages of one worker where requests may share them: a prefix cache with reference counts.

A block is the KV cache of 16 tokens in all layers of a stage: one page in each layer. Equal block numbers stand for
equal content from the first token on. A block that has been computed can be used by other requests at once. When the
last request that uses it ends, the block stays in the cache, idle, until its pages are needed. The block that has been
idle for the longest time goes first; of one request the last block, because no other block depends on it.

A stage may be a part of the worker's layers. A block that was computed for layers [a, b) serves every stage within
[a, b), so a request that enters the worker in the middle finds what another one left that entered earlier.

>>> import numpy as np
>>> pages = SharedPages(12)
>>> first = pages.promise(40, 0, 2, np.array([7, 8]))
>>> pages.add_blocks(first, np.array([7, 8]), owner=(1, 0)).tolist(), pages.free
([7, 8], 6)
>>> pages.leave(first), pages.release(first), pages.free, pages.find(np.array([7, 8]), 1, 2).size
(None, None, 12, 2)
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from helix_kit.scheduling.page_counts import PageCounts
from helix_kit.scheduling.windowed_blocks import EMPTY, NOTHING, Keep

ABSENT = -1
"""Users of a block that is not held."""
MIN_QUEUE = 4096
"""Outdated entries of the queue of idle blocks are removed when there are more than these."""


class _Span:
    """The blocks that were computed for layers [start, end), as arrays over all block numbers."""

    def __init__(self, start: int, end: int, size: int) -> None:
        self.start, self.end, self.layers = start, end, end - start
        self.users = np.full(size, ABSENT, dtype=np.int64)
        self.idle_since = np.zeros(size, dtype=np.int64)
        self.owner = np.zeros((size, 3), dtype=np.int64)

    def grow(self, size: int) -> None:
        more = size - len(self.users)
        self.users = np.concatenate([self.users, np.full(more, ABSENT, dtype=np.int64)])
        self.idle_since = np.concatenate([self.idle_since, np.zeros(more, dtype=np.int64)])
        self.owner = np.concatenate([self.owner, np.zeros((more, 3), dtype=np.int64)])


@dataclass(slots=True, eq=False)
class Hold:
    """The pages of one request on one worker."""

    start: int
    end: int
    """It computes layers [start, end)."""
    private: int
    """Pages promised to it for tokens that no other request can use."""
    blocks: np.ndarray = field(default_factory=lambda: EMPTY)
    """Numbers of the blocks that it uses and that others may use, too, in order."""
    spans: np.ndarray = field(default_factory=lambda: EMPTY)
    """For each of `blocks` the span that has it."""
    first: int = 0
    """Blocks of the request before this one need not be looked at by `add_blocks` again."""
    shared: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), dtype=np.int64))
    """Owner of each block that was found at the start: request, epoch and place of the block there."""
    own: np.ndarray = field(default_factory=lambda: EMPTY)
    """Places of the blocks that the request itself has made known."""
    keep: Keep = NOTHING
    without_window: np.ndarray = field(default_factory=lambda: EMPTY)
    """There are no layers with windows, so both stay empty."""

    @property
    def layers(self) -> int:
        """Layers of the stage."""
        return self.end - self.start


class SharedPages(PageCounts):
    """Pages of one worker, promised to requests or held for later ones.

    Parameters
    ----------
    capacity
        Pages of the worker.
    page_tokens
        Tokens of one layer in a page.

    Examples
    --------
    >>> SharedPages(10).free
    10
    """

    has_windows = False

    def __init__(self, capacity: int, *, page_tokens: int = 16) -> None:
        super().__init__(capacity, page_tokens=page_tokens)
        self._evicted: list[np.ndarray] = []
        self._spans: list[_Span] = []
        self._size = 1024
        self._queue: deque[tuple[int, np.ndarray, int]] = deque()
        """Idle blocks, the first to go first: span, block numbers, and the moment at which they became idle. An entry
        counts only while the block is idle since that moment."""
        self._queued = self._idle_blocks = 0
        self._moment = 0

    def pages(self, tokens: int, num_layers: int) -> int:
        """Pages for `tokens` of context in `num_layers` layers."""
        return -(-tokens // self.page_tokens) * num_layers

    # ---- what is held --------------------------------------------------------------------------------------------

    def find(self, blocks: np.ndarray, start: int, end: int) -> np.ndarray:
        """Which of the leading `blocks` are held for layers [start, end): the span of each, until one is missing."""
        if not len(blocks):
            return EMPTY
        self._make_room(blocks)
        choice: np.ndarray | None = None
        for index, span in enumerate(self._spans):
            if span.start <= start and span.end >= end:
                there = span.users[blocks] > ABSENT
                if choice is None:
                    choice = np.where(there, index, ABSENT)
                else:
                    choice[there & (choice == ABSENT)] = index
        if choice is None:
            return EMPTY
        missing = choice == ABSENT
        return choice[: int(missing.argmax())] if missing.any() else choice

    def _make_room(self, blocks: np.ndarray) -> None:
        largest = int(blocks.max())
        if largest >= self._size:
            self._size = 2 * largest
            for span in self._spans:
                span.grow(self._size)

    def _span_of(self, start: int, end: int) -> int:
        for index, span in enumerate(self._spans):
            if (span.start, span.end) == (start, end):
                return index
        self._spans.append(_Span(start, end, self._size))
        return len(self._spans) - 1

    def held_blocks(self) -> np.ndarray:
        """Number of each block that is held, once for each span that has it."""
        return np.concatenate([EMPTY, *(np.flatnonzero(span.users > ABSENT) for span in self._spans)])

    # ---- promises ------------------------------------------------------------------------------------------------

    def _needs(self, tokens: int, num_layers: int, blocks: np.ndarray, spans: np.ndarray) -> tuple[int, int]:
        """Pages of its own that a request needs beside these blocks, and pages of idle blocks that it takes up."""
        woken = 0
        for index, chosen in self._by_span(blocks, spans):
            span = self._spans[index]
            woken += span.layers * (len(chosen) - int(np.count_nonzero(span.users[chosen])))
        return self.pages(tokens, num_layers) - num_layers * len(blocks), woken

    def _by_span(self, blocks: np.ndarray, spans: np.ndarray) -> list[tuple[int, np.ndarray]]:
        """The blocks of each span, in order."""
        if not len(blocks):
            return []
        if len(self._spans) == 1:
            return [(0, blocks)]
        return [(index, blocks[spans == index]) for index in np.unique(spans).tolist()]

    def has_room(self, tokens: int, start: int, end: int, blocks: np.ndarray = EMPTY) -> bool:
        """Whether a request of `tokens` fits into layers [start, end); it may begin with `blocks`."""
        if self.pages(tokens, end - start) <= self.free:
            return True
        spans = self.find(blocks, start, end)
        return len(spans) > 0 and sum(self._needs(tokens, end - start, blocks[: len(spans)], spans)) <= self.free

    def fits(self, tokens: int, start: int, end: int, blocks: np.ndarray) -> bool:
        """Whether a request that begins with `blocks`, all of which are held, can be promised its pages."""
        return sum(self._needs(tokens, end - start, blocks, self.find(blocks, start, end))) <= self.free

    def holds_when_empty(self, tokens: int, start: int, end: int) -> bool:
        """Whether a request fits into layers [start, end) of the worker when it holds no other."""
        return self.pages(tokens, end - start) <= self.capacity

    def promise(
        self,
        tokens: int,
        start: int,
        end: int,
        blocks: np.ndarray = EMPTY,
        *,
        keepable: int = 0,
        wanted: np.ndarray = EMPTY,
    ) -> Hold:
        """Promise a request its pages; it begins with those of `blocks` that are held.

        The caller knows that it fits, and calls `evict` next. `keepable` and `wanted` matter only where there are
        windows.
        """
        spans = self.find(blocks, start, end)
        blocks = blocks[: len(spans)]
        private, woken = self._needs(tokens, end - start, blocks, spans)
        hold = Hold(start, end, private, blocks, spans, len(blocks))
        hold.shared = np.zeros((len(blocks), 3), dtype=np.int64)
        for index, chosen in self._by_span(blocks, spans):
            span = self._spans[index]
            before = span.users[chosen]
            self._idle_blocks -= len(chosen) - int(np.count_nonzero(before))
            span.users[chosen] = before + 1
            hold.shared[spans == index] = span.owner[chosen]
        self.idle -= woken
        self.private += private
        return hold

    def more_pages(self, hold: Hold, tokens: int) -> int:
        """Pages that a request of `tokens` in all needs beyond those that it has been promised."""
        return self.pages(tokens, hold.layers) - hold.layers * len(hold.blocks) - hold.private

    def extend(self, hold: Hold, tokens: int) -> bool:
        """Promise a request pages for `tokens` in all; False, and nothing changed, where there are too few."""
        more = self.more_pages(hold, tokens)
        if more > self.free:
            return False
        hold.private += more
        self.private += more
        return True

    def evict(self, *, all_idle: bool = False) -> np.ndarray:
        """Make the pages free that are promised, but belong to idle blocks, or those of all idle blocks.

        Returns the owners of the blocks, shape (blocks, 3).
        """
        gone: list[np.ndarray] = []
        excess = self.idle if all_idle else self.private + self.held - self.capacity
        while excess > 0:
            index, blocks, moment = self._queue.popleft()
            self._queued -= len(blocks)
            span = self._spans[index]
            blocks = blocks[(span.users[blocks] == 0) & (span.idle_since[blocks] == moment)]
            count = -(-excess // span.layers)
            if len(blocks) > count:
                self._queue.appendleft((index, blocks[count:], moment))
                self._queued += len(blocks) - count
                blocks = blocks[:count]
            span.users[blocks] = ABSENT
            self._idle_blocks -= len(blocks)
            pages = span.layers * len(blocks)
            self.held -= pages
            self.idle -= pages
            excess -= pages
            gone.append(span.owner[blocks])
            self._evicted.append(blocks)
        return np.concatenate(gone) if gone else np.zeros((0, 3), dtype=np.int64)

    def take_evicted(self) -> np.ndarray:
        """Numbers of the blocks that were evicted since the last call."""
        evicted, self._evicted = self._evicted, []
        return np.concatenate(evicted) if evicted else EMPTY

    def add_blocks(self, hold: Hold, blocks: np.ndarray, owner: tuple[int, int]) -> np.ndarray:
        """The request has computed its first ``len(blocks)`` blocks: others may use them from now on.

        Blocks that another request has made known before stay the request's own. Returns the numbers of the others.
        """
        first, hold.first = hold.first, max(hold.first, len(blocks))
        new = blocks[first:]
        if not len(new):
            return EMPTY
        self._make_room(new)
        is_new = np.ones(len(new), dtype=bool)
        for span in self._spans:
            if span.start <= hold.start and span.end >= hold.end:
                is_new &= span.users[new] == ABSENT
        index = self._span_of(hold.start, hold.end)
        span, places, new = self._spans[index], first + np.flatnonzero(is_new), new[is_new]
        span.users[new] = 1
        span.owner[new, 0], span.owner[new, 1], span.owner[new, 2] = *owner, places
        pages = hold.layers * len(new)
        hold.blocks = np.concatenate([hold.blocks, new])
        hold.spans = np.concatenate([hold.spans, np.full(len(new), index)])
        hold.own = np.concatenate([hold.own, places])
        hold.private -= pages
        self.private -= pages
        self.held += pages
        return new

    def advance(self, hold: Hold, position: int) -> None:
        """The request computes the token at `position` next: without windows it still sees all of its tokens."""

    def leave(self, hold: Hold) -> None:
        """The request no longer uses the blocks that it shares; its own pages stay promised until `release`."""
        self._moment += 1
        for index, blocks in self._by_span(hold.blocks, hold.spans):
            span = self._spans[index]
            left = span.users[blocks] - 1
            span.users[blocks] = left
            idle = blocks[left == 0][::-1]
            if len(idle):
                span.idle_since[idle] = self._moment
                self.idle += span.layers * len(idle)
                self._queue.append((index, idle, self._moment))
                self._queued += len(idle)
                self._idle_blocks += len(idle)
        hold.blocks = hold.spans = EMPTY
        if self._queued > MIN_QUEUE and self._queued > 2 * self._idle_blocks:
            self._remove_outdated()

    def _remove_outdated(self) -> None:
        kept: deque[tuple[int, np.ndarray, int]] = deque()
        for index, blocks, moment in self._queue:
            span = self._spans[index]
            still_idle = blocks[(span.users[blocks] == 0) & (span.idle_since[blocks] == moment)]
            if len(still_idle):
                kept.append((index, still_idle, moment))
        self._queue, self._queued = kept, sum(len(blocks) for _, blocks, _ in kept)
