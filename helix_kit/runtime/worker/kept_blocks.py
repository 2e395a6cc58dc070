"""Where the pages of blocks lie that requests may share: those of running requests, and those kept of ended ones.

A block is named by the attempt that computed it, (request, epoch), and its place there. The coordinator decides what is
shared, kept and evicted; a worker only follows. It evicts a block when no request uses it, so a name that comes with a
request's first rows is always known here, whichever way messages take.

A request that begins after shared blocks sees only the last ones in layers with windows: it takes no pages of the
others there, which may have been evicted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from helix_kit.runtime.transport.messages import BlockRun, RouteStage
from helix_kit.runtime.worker.kv_cache import PAGE_TOKENS, BlockTable, PagePool
from helix_kit.scheduling.windowed_blocks import ALL, WITH_WINDOW, first_seen_block


@dataclass(slots=True, eq=False)
class _Attempt:
    """An attempt that computed blocks for layers from `start` on."""

    start: int
    table: BlockTable | None
    """Its pages while it runs."""
    pages: np.ndarray
    """Its pages when it has ended, shape (layers, pages per layer); the padding page stands for those that are gone."""
    kept: int = 0
    """Blocks that are kept."""


class KeptBlocks:
    """The attempts that have pages on a worker.

    Parameters
    ----------
    pool
        The worker's pages.
    start
        The worker's first layer.
    windows
        Window of each of its layers in tokens, 0 for none; empty: there are none.
    """

    def __init__(self, pool: PagePool, start: int = 0, windows: Sequence[int] = ()) -> None:
        self._pool, self._start, self._windows = pool, start, tuple(windows)
        self._attempts: dict[tuple[int, int], _Attempt] = {}

    def _windows_of(self, start: int, num_layers: int) -> tuple[int, ...]:
        """The windows of some layers; empty where none has one."""
        windows = self._windows[start - self._start : start - self._start + num_layers]
        return windows if any(windows) else ()

    def _layers(self, attempt: _Attempt, part: int) -> np.ndarray:
        """Indices of an attempt's layers of a part of its blocks."""
        pages = attempt.pages if attempt.table is None else attempt.table.pages
        windows = np.array(self._windows_of(attempt.start, len(pages)) or [0] * len(pages))
        if part == ALL:
            return np.arange(len(pages))
        return np.flatnonzero(windows > 0 if part == WITH_WINDOW else windows == 0)

    def new_table(self, request: int, epoch: int, stage: RouteStage) -> BlockTable | None:
        """A table for a new attempt, which begins with the blocks that it shares; None where one is not known."""
        if (request, epoch) in self._attempts:
            return None
        windows = self._windows_of(stage.start, stage.end - stage.start)
        table = BlockTable(stage.end - stage.start, windows, (stage.keep_first, stage.keep_stop))
        found = []
        for run in stage.shared:
            source = self._attempts.get((run.request, run.epoch))
            if source is None:
                return None
            pages = source.table.pages if source.table is not None else source.pages
            first = stage.start - source.start
            if first < 0 or first + len(table.pages) > len(pages) or run.first + run.count > pages.shape[1]:
                return None
            found.append(pages[first : first + len(table.pages), run.first : run.first + run.count])
        if found:
            shared, padding = np.concatenate(found, axis=1), self._pool.padding_page
            unseen = np.zeros(shared.shape, dtype=bool)
            for layer, window in enumerate(windows):
                if window:
                    unseen[layer, : first_seen_block(shared.shape[1] * PAGE_TOKENS, window, PAGE_TOKENS)] = True
            if (shared[~unseen] == padding).any():
                return None
            shared[unseen] = padding
            table.begin_with(shared)
            self._pool.share(shared[~unseen])
        self._attempts[request, epoch] = _Attempt(stage.start, table, table.pages)
        return table

    def end(self, request: int, epoch: int, kept: Iterable[BlockRun]) -> None:
        """An attempt has ended: return its pages, except those of the blocks that are kept."""
        attempt = self._attempts.pop((request, epoch), None)
        if attempt is None or attempt.table is None:
            return
        attempt.pages, table, attempt.table = attempt.table.pages, attempt.table, None
        stays = np.zeros(attempt.pages.shape, dtype=bool)
        for run in kept:
            stays[np.ix_(self._layers(attempt, run.part), np.arange(run.first, run.first + run.count))] = True
            attempt.kept += run.count
        stays &= attempt.pages != self._pool.padding_page
        self._pool.keep(attempt.pages[stays])
        table.release(self._pool)
        attempt.pages = np.where(stays, attempt.pages, self._pool.padding_page)
        if attempt.kept:
            self._attempts[request, epoch] = attempt

    def evict(self, run: BlockRun) -> None:
        """Return the pages of blocks that were kept, or, of a running request, those in layers with windows."""
        attempt = self._attempts.get((run.request, run.epoch))
        if attempt is None:
            return
        layers, blocks = self._layers(attempt, run.part), np.arange(run.first, run.first + run.count)
        if attempt.table is not None:
            if run.part == WITH_WINDOW:
                attempt.table.give_back_part(self._pool, layers, blocks)
            return
        place = np.ix_(layers, blocks)
        pages = attempt.pages[place]
        self._pool.drop(pages[pages != self._pool.padding_page])
        attempt.pages[place] = self._pool.padding_page
        if run.part != WITH_WINDOW:
            attempt.kept -= run.count
        if attempt.kept <= 0:
            del self._attempts[run.request, run.epoch]
