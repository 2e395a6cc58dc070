"""Where the pages of blocks lie that requests may share: those of running requests, and those kept of ended ones.

A block is named by the attempt that computed it, (request, epoch), and its place there. The coordinator decides what is
shared, kept and evicted; a worker only follows. It evicts a block when no request uses it, so a name that comes with a
request's first rows is always known here, whichever way messages take.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from helix_kit.runtime.transport.messages import BlockRun, RouteStage
from helix_kit.runtime.worker.kv_cache import BlockTable, PagePool


@dataclass(slots=True, eq=False)
class _Attempt:
    """An attempt that computed blocks for layers from `start` on."""

    start: int
    table: BlockTable | None
    """Its pages while it runs."""
    pages: np.ndarray
    """Its pages when it has ended, shape (layers, pages per layer); only those of kept blocks mean anything."""
    kept: int = 0
    """Blocks that are kept."""


class KeptBlocks:
    """The attempts that have pages on a worker.

    Parameters
    ----------
    pool
        The worker's pages.
    """

    def __init__(self, pool: PagePool) -> None:
        self._pool = pool
        self._attempts: dict[tuple[int, int], _Attempt] = {}

    def new_table(self, request: int, epoch: int, stage: RouteStage) -> BlockTable | None:
        """A table for a new attempt, which begins with the blocks that it shares; None where one is not known."""
        if (request, epoch) in self._attempts:
            return None
        table = BlockTable(stage.end - stage.start)
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
            table.begin_with(np.concatenate(found, axis=1))
            self._pool.share(table.pages.ravel())
        self._attempts[request, epoch] = _Attempt(stage.start, table, table.pages)
        return table

    def end(self, request: int, epoch: int, kept: Iterable[BlockRun]) -> None:
        """An attempt has ended: return its pages, but for those of the blocks that are kept."""
        attempt = self._attempts.pop((request, epoch), None)
        if attempt is None or attempt.table is None:
            return
        attempt.pages, table, attempt.table = attempt.table.pages, attempt.table, None
        for run in kept:
            self._pool.keep(attempt.pages[:, run.first : run.first + run.count].ravel())
            attempt.kept += run.count
        table.release(self._pool)
        if attempt.kept:
            self._attempts[request, epoch] = attempt

    def evict(self, run: BlockRun) -> None:
        """Return the pages of blocks that were kept."""
        attempt = self._attempts.get((run.request, run.epoch))
        if attempt is None or attempt.table is not None:
            return
        self._pool.drop(attempt.pages[:, run.first : run.first + run.count].ravel())
        attempt.kept -= run.count
        if attempt.kept <= 0:
            del self._attempts[run.request, run.epoch]
