"""The KV pages of one worker some of whose layers have a sliding window, where requests may share prefixes.

A layer with a window returns a page when no later token of its request sees it. So a request needs pages for all of its
context in the other layers, and for little more than the window in these.

A block that is known to others has two parts: its pages in layers without a window, and those in layers with one. The
first part serves every request that begins with the block. The second one is needed only by requests that begin within
a window after it, so it becomes idle, and may be evicted, before the first. A request may begin after a block when the
first parts of all blocks up to there are held, and the second parts within one window.

A worker returns pages by itself, except those of blocks that a request keeps for others (`Keep`): these stay until
the coordinator evicts them. A request keeps all blocks of its prompt where there is room, else those of the last
window, else none.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

import numpy as np

from helix_kit.scheduling.page_counts import PageCounts
from helix_kit.scheduling.windowed_blocks import (
    ALL,
    EMPTY,
    NOTHING,
    WITH_WINDOW,
    Block,
    Keep,
    Span,
    WindowedHold,
    first_seen_block,
)


class WindowedPages(PageCounts):
    """Pages of one worker with windows, promised to requests or held for later ones.

    The calls are those of `SharedPages`, whose description says more of each.

    Parameters
    ----------
    capacity
        Pages of the worker.
    start
        Its first layer.
    windows
        Window of each of its layers in tokens; 0: none.
    chunk_tokens
        Rows of one request that a step takes at most.
    page_tokens
        Tokens of one layer in a page.

    Examples
    --------
    Two layers, one of which sees 32 tokens. A request of 1,000 tokens takes 63 pages in one, and in the other those of
    its window and of a chunk of 16 tokens:

    >>> pages = WindowedPages(100, 0, [0, 32], chunk_tokens=16)
    >>> pages.promise(1000, 0, 2).private, pages.has_room(1000, 0, 2)
    (67, False)
    """

    has_windows = True

    def __init__(
        self, capacity: int, start: int, windows: Sequence[int], *, chunk_tokens: int, page_tokens: int = 16
    ) -> None:
        super().__init__(capacity, page_tokens=page_tokens)
        self._start, self._windows, self._chunk_tokens = start, tuple(windows), chunk_tokens
        self._widest = max(self._windows)
        self._spans: dict[tuple[int, int], Span] = {}
        self._idle_blocks: OrderedDict[Block, None] = OrderedDict()
        self._idle_windows: OrderedDict[Block, None] = OrderedDict()
        self._evicted: list[int] = []
        self._replaced: dict[Block, None] = {}
        """Blocks that cannot be found any more, because others with a second part took their places."""
        self._moment = 0

    # ---- what is held --------------------------------------------------------------------------------------------

    def find(self, blocks: np.ndarray, start: int, end: int) -> list[Block]:
        """The longest run of leading `blocks` after which a request may begin in layers [start, end)."""
        found = self._leading(blocks, start, end)
        if not any(self._windows_of(start, end)):
            return found
        longest = run = 0
        for count, block in enumerate(found, 1):
            run = run + 1 if block.has_window else 0
            if run >= count - self._first_seen(count * self.page_tokens):
                longest = count
        return found[:longest]

    def _leading(self, blocks: np.ndarray, start: int, end: int) -> list[Block]:
        """The leading `blocks` that are held for layers [start, end), with or without their second parts."""
        spans = self._around(start, end)
        found: list[Block] = []
        for number in blocks.tolist():
            block = self._best(spans, number)
            if block is None:
                break
            found.append(block)
        return found

    def _around(self, start: int, end: int) -> list[Span]:
        """The spans whose blocks serve layers [start, end)."""
        return [span for span in self._spans.values() if span.start <= start and span.end >= end]

    @staticmethod
    def _best(spans: Iterable[Span], number: int) -> Block | None:
        """The block of the first span that has it, of one that has its second part if any does."""
        there = [span.blocks[number] for span in spans if number in span.blocks]
        return next((block for block in there if block.has_window), there[0] if there else None)

    def _first_seen(self, position: int) -> int:
        return first_seen_block(position, self._widest, self.page_tokens)

    def _in_window(self, blocks: Sequence[Block], start: int, end: int) -> list[tuple[int, Block]]:
        """Place and block of those of the leading blocks that a request sees that begins after them."""
        first = self._first_seen(len(blocks) * self.page_tokens) if any(self._windows_of(start, end)) else len(blocks)
        return list(enumerate(blocks))[first:]

    def _windows_of(self, start: int, end: int) -> tuple[int, ...]:
        return self._windows[start - self._start : end - self._start]

    def held_blocks(self) -> np.ndarray:
        """Number of each block that is held, once for each span that has it."""
        numbers = [number for span in self._spans.values() for number in span.blocks]
        return np.array(numbers + [block.number for block in self._replaced], dtype=np.int64)

    # ---- promises ------------------------------------------------------------------------------------------------

    def _own_pages(self, hold: WindowedHold, tokens: int | None = None) -> int:
        """Pages that a request needs at most beside those of the blocks that others may use, too.

        It has `tokens`; None: as many as it was promised pages for.
        """
        blocks = -(-(hold.tokens if tokens is None else tokens) // self.page_tokens) - hold.hits - hold.known
        rows = 1 if hold.is_computed else self._chunk_tokens
        kept = hold.kept_alone if hold.is_computed else hold.keep.size
        total = 0
        for window in self._windows_of(hold.start, hold.end):
            # The tokens that the first row of a step sees, and its rows, from any place in a page on.
            total += min(blocks, kept + -(-(window - 1 + rows) // self.page_tokens) + 1) if window else blocks
        return total

    def _idle_pages_of(self, blocks: Sequence[Block], start: int, end: int) -> int:
        """Idle pages that a request in layers [start, end) takes up with these blocks."""
        pages = sum(block.span.without for block in blocks if not block.users)
        seen = self._in_window(blocks, start, end)
        return pages + sum(block.span.windowed for _, block in seen if not block.window_users)

    def _keep_options(self, keepable: int, hits: int, known: int) -> list[Keep]:
        """What a request may keep of its `keepable` blocks, which others could use; the most first.

        Other requests have computed the first parts of `known` blocks, so further requests are likely to use these.
        """
        stop = known if known > hits else keepable
        last = Keep(max(hits, self._first_seen(stop * self.page_tokens)), stop)
        return [keep for keep in (Keep(hits, keepable), last) if keep.size] + [NOTHING]

    def _needs(self, tokens: int, start: int, end: int, blocks: Sequence[Block], keep: Keep) -> int:
        own = self._own_pages(WindowedHold(start, end, tokens, len(blocks), keep))
        return own + self._idle_pages_of(blocks, start, end)

    def has_room(self, tokens: int, start: int, end: int, blocks: np.ndarray = EMPTY) -> bool:
        """Whether a request of `tokens` fits into layers [start, end); it may begin with `blocks`."""
        if self._needs(tokens, start, end, (), NOTHING) <= self.free:
            return True
        found = self.find(blocks, start, end)
        return bool(found) and self._needs(tokens, start, end, found, NOTHING) <= self.free

    def fits(self, tokens: int, start: int, end: int, blocks: np.ndarray) -> bool:
        """Whether a request that begins with `blocks`, after which it may begin, can be promised its pages."""
        return self._needs(tokens, start, end, self.find(blocks, start, end), NOTHING) <= self.free

    def holds_when_empty(self, tokens: int, start: int, end: int) -> bool:
        """Whether a request fits into layers [start, end) of the worker when it holds no other."""
        return self._needs(tokens, start, end, (), NOTHING) <= self.capacity

    def promise(
        self,
        tokens: int,
        start: int,
        end: int,
        blocks: np.ndarray = EMPTY,
        *,
        keepable: int = 0,
        wanted: np.ndarray = EMPTY,
    ) -> WindowedHold:
        """Promise a request its pages; it begins with `blocks`, after which it may begin.

        The caller knows that it fits, and calls `evict` next. Others could use `keepable` of its leading blocks; the
        leading ones that some request has computed are `wanted`.
        """
        found = self.find(blocks, start, end)
        hits = len(found)
        known = len(self._leading(wanted, start, end))
        options = self._keep_options(keepable, hits, known)
        keep = next((k for k in options if self._needs(tokens, start, end, found, k) <= self.free), NOTHING)
        hold = WindowedHold(start, end, tokens, hits, keep, blocks=found)
        if known > hits:
            hold.branch = Keep(self._first_seen(known * self.page_tokens), known)
        hold.shared = np.array([block.owner for block in found], dtype=np.int64).reshape(-1, 3)
        self.idle -= self._idle_pages_of(found, start, end)
        for block in found:
            block.users += 1
            self._idle_blocks.pop(block, None)
        for _, block in self._in_window(found, start, end):
            block.window_users += 1
            self._idle_windows.pop(block, None)
            hold.pinned.append(block)
        hold.private = self._own_pages(hold)
        self.private += hold.private
        return hold

    def more_pages(self, hold: WindowedHold, tokens: int) -> int:
        """Pages that a request of `tokens` in all needs beyond those that it has been promised."""
        return self._own_pages(hold, tokens) - hold.private

    def extend(self, hold: WindowedHold, tokens: int) -> bool:
        """Promise a request pages for `tokens` in all; False, and nothing changed, where there are too few."""
        more = self.more_pages(hold, tokens)
        if more > self.free:
            return False
        hold.tokens = tokens
        hold.private += more
        self.private += more
        return True

    def evict(self, *, all_idle: bool = False) -> np.ndarray:
        """Make the pages free that are promised, but idle, or all idle ones.

        Returns owner and part of the blocks, shape (blocks, 4). Of a block that is evicted as a whole, the part is ALL.
        """
        gone: list[tuple[int, int, int, int]] = []
        target = self.held - self.idle if all_idle else self.capacity - self.private
        while self.held > target:
            gone.append(self._evict(*self._next_to_go()))
        return np.array(gone, dtype=np.int64).reshape(-1, 4)

    def _evict(self, block: Block, part: int) -> tuple[int, int, int, int]:
        """Make an idle block, or its second part, free; returns its owner and the part."""
        if part == ALL:
            if block in self._replaced:
                del self._replaced[block]
            else:
                del block.span.blocks[block.number]
            del self._idle_blocks[block]
            self.held -= block.span.without
            self.idle -= block.span.without
            self._evicted.append(block.number)
        if block.has_window:
            del self._idle_windows[block]
            self.held -= block.span.windowed
            self.idle -= block.span.windowed
            block.has_window = False
        return (*block.owner, part)

    def _next_to_go(self) -> tuple[Block, int]:
        """The block, or its second part, that has been idle for the longest time."""
        window = next(iter(self._idle_windows), None)
        block = next(iter(self._idle_blocks), None)
        if window is None or (block is not None and block.idle_since < window.window_idle_since):
            assert block is not None, "pages are promised that are not there"
            return block, ALL
        return window, WITH_WINDOW

    def take_evicted(self) -> np.ndarray:
        """Numbers of the blocks that were evicted as a whole since the last call."""
        evicted, self._evicted = self._evicted, []
        return np.array(evicted, dtype=np.int64)

    # ---- a request's life ----------------------------------------------------------------------------------------

    def add_blocks(self, hold: WindowedHold, blocks: np.ndarray, owner: tuple[int, int]) -> np.ndarray:
        """The request's prompt has been computed: others may use its first ``len(blocks)`` blocks from now on.

        Later calls change nothing: a worker may have returned pages of an answer. Returns the numbers of new blocks.
        """
        if hold.is_computed:
            return EMPTY
        hold.is_computed = True
        spans = self._around(hold.start, hold.end)
        windows = self._windows_of(hold.start, hold.end)
        windowed = sum(1 for window in windows if window)
        new, places = [], []
        self._moment += 1
        for place, number in enumerate(blocks.tolist()):
            if place < hold.hits:
                continue
            is_kept = hold.keep.first <= place < hold.keep.stop
            there = [span.blocks[number] for span in spans if number in span.blocks]
            if is_kept and there and not any(block.has_window for block in there):
                # Nothing can begin after a block without its second part: this request's block takes its place.
                for block in there:
                    del block.span.blocks[number]
                    self._replaced[block] = None
            elif there:
                hold.kept_alone += is_kept
                continue
            span = self._spans.setdefault(
                (hold.start, hold.end), Span(hold.start, hold.end, len(windows) - windowed, windowed)
            )
            block = span.blocks[number] = Block(number, span, (*owner, place), is_kept and windowed > 0)
            hold.blocks.append(block)
            self.held += span.without
            if block.has_window:
                block.window_users = 1
                if hold.branch.first <= place < hold.branch.stop:
                    hold.pinned.append(block)
                else:
                    hold.window.append((place, block))
                self.held += windowed
            new.append(number)
            places.append(place)
        hold.known, hold.own = len(new), np.array(places, dtype=np.int64)
        private = self._own_pages(hold)
        self.private += private - hold.private
        hold.private = private
        self.advance(hold, len(blocks) * self.page_tokens)
        return np.array(new, dtype=np.int64)

    def advance(self, hold: WindowedHold, position: int) -> None:
        """The request computes the token at `position` next: blocks before its window are no longer in use."""
        first = self._first_seen(position)
        if hold.window and hold.window[0][0] < first:
            self._moment += 1
            while hold.window and hold.window[0][0] < first:
                self._leave_window(hold.window.popleft()[1])

    def _leave_window(self, block: Block) -> None:
        block.window_users -= 1
        if block.window_users == 0 and block.has_window:
            block.window_idle_since = self._moment
            self._idle_windows[block] = None
            self.idle += block.span.windowed

    def leave(self, hold: WindowedHold) -> None:
        """The request no longer uses the blocks that it shares; its own pages stay promised until `release`."""
        self._moment += 1
        while hold.window:
            self._leave_window(hold.window.pop()[1])
        while hold.pinned:
            self._leave_window(hold.pinned.pop())
        own = {block.owner[2]: block for block in hold.blocks[hold.hits :]}
        hold.without_window = np.array([p for p, block in own.items() if not block.has_window], dtype=np.int64)
        for block in reversed(hold.blocks):
            block.users -= 1
            if block.users == 0:
                block.idle_since = self._moment
                self._idle_blocks[block] = None
                self.idle += block.span.without
        hold.blocks = []
