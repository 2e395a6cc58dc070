"""Steps that several ranks take together: rank 0 says which rows of which requests, and all run the same layers.

A step is told by what it needs beyond the rows: the position of each request, and the pages that its block table has
gained since its last step. The other ranks keep a copy of each table, so their keys and values lie in the same pages.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import torch

from helix_kit.runtime.worker.kv_cache import BlockTable, PagePool
from helix_kit.runtime.worker.model_layers import LayerSegment, ModelLayers, RequestRows
from helix_kit.runtime.worker.rank_group import RankGroup, RankLostError


class _Request(msgspec.Struct, array_like=True):
    """One request of a step."""

    table: int
    """Number of its block table."""
    releases: int
    """How often that was emptied: a copy from before is emptied, too."""
    pages: bytes
    """Pages that the table has gained, int32, (layers, pages)."""
    layers: int
    """Layers of the table."""
    position: int
    tokens: int
    start: int
    end: int
    rotary_tokens: int


class _Step(msgspec.Struct, tag="step"):
    requests: list[_Request]
    cleared: list[int]
    """Pages that were taken again, and set to zero, since the last step."""
    gone: list[int]
    """Tables that are no longer used."""


class _NewPool(msgspec.Struct, tag="pool"):
    num_pages: int


class _Stop(msgspec.Struct, tag="stop"):
    pass


_DECODER = msgspec.msgpack.Decoder(_Step | _NewPool | _Stop)


@dataclass(slots=True)
class _Told:
    """What the other ranks know of a block table."""

    number: int
    columns: int = 0
    """Pages of each layer."""
    releases: int = 0


class RankSteps:
    """Rank 0's side: tells the other ranks each step before it is run here."""

    def __init__(self, group: RankGroup) -> None:
        self._group = group
        self._told: weakref.WeakKeyDictionary[BlockTable, _Told] = weakref.WeakKeyDictionary()
        self._numbers = 0
        self._gone: list[int] = []
        self._cleared: list[int] = []

    def tell_pool(self, pool: PagePool) -> None:
        """The other ranks make a pool of the same size, and clear the same pages."""
        self._told.clear()
        self._cleared.clear()
        pool.on_clear = self._cleared.extend
        self._tell(_NewPool(pool.num_pages))

    def tell_step(self, batch: Sequence[RequestRows]) -> None:
        """The other ranks run this step, too."""
        requests = [self._request(rows) for rows in batch]
        cleared, gone = self._cleared[:], self._gone[:]
        del self._cleared[: len(cleared)], self._gone[: len(gone)]
        self._tell(_Step(requests, cleared, gone))
        self._group.share_rows(torch.cat([rows.hidden for rows in batch]))

    def _tell(self, command: _Step | _NewPool | _Stop) -> None:
        self._group.tell(msgspec.msgpack.encode(command))

    def _request(self, rows: RequestRows) -> _Request:
        table = rows.table
        told = self._told.get(table)
        if told is None:
            told = self._told[table] = _Told(self._numbers)
            weakref.finalize(table, self._gone.append, told.number).atexit = False
            self._numbers += 1
        if told.releases != table.releases:
            told.releases, told.columns = table.releases, 0
        new = np.ascontiguousarray(table.pages[:, told.columns :], dtype=np.int32)
        told.columns = table.pages.shape[1]
        return _Request(
            table=told.number,
            releases=table.releases,
            pages=new.tobytes(),
            layers=len(table.pages),
            position=rows.position,
            tokens=rows.tokens,
            start=rows.start,
            end=rows.end,
            rotary_tokens=rows.rotary_tokens,
        )


def stop_ranks(group: RankGroup) -> None:
    """Rank 0: let the others end. Ranks that have ended already are no error."""
    with contextlib.suppress(RankLostError):
        group.tell(msgspec.msgpack.encode(_Stop()))


def follow(model: ModelLayers, group: RankGroup) -> None:
    """The other ranks' side: run what rank 0 tells, until it says stop."""
    pool: PagePool | None = None
    tables: dict[int, BlockTable] = {}
    while True:
        command = _DECODER.decode(group.hear())
        if isinstance(command, _Stop):
            return
        if isinstance(command, _NewPool):
            tables.clear()
            pool = None  # the memory of the one before is free before the new one takes its own
            pool = model.new_pool(command.num_pages)
            continue
        assert pool is not None, "rank 0 makes a pool first"
        if command.cleared:
            pool.clear(command.cleared)
        for number in command.gone:
            tables.pop(number, None)
        count = sum(request.tokens for request in command.requests)
        rows = group.share_rows(torch.empty(count, model.hidden_size, dtype=model.dtype, device=model.device))
        parts = rows.split([request.tokens for request in command.requests])
        batch = [
            RequestRows(
                _copied(tables, request),
                part,
                request.position,
                request.start,
                request.end,
                rotary_tokens=request.rotary_tokens,
            )
            for request, part in zip(command.requests, parts, strict=True)
        ]
        model.run(pool, batch)


def _copied(tables: dict[int, BlockTable], request: _Request) -> BlockTable:
    """This rank's copy of a request's block table, with its new pages."""
    table = tables.setdefault(request.table, BlockTable(request.layers))
    if table.releases != request.releases:
        table.pages, table.releases = np.empty((request.layers, 0), dtype=np.int64), request.releases
    new = np.frombuffer(request.pages, dtype=np.int32).reshape(request.layers, -1).astype(np.int64)
    table.pages = np.concatenate([table.pages, new], axis=1)
    table.num_tokens = request.position + request.tokens
    return table


class LeadingLayers(ModelLayers):
    """The layers of rank 0: every pool and every step is told to the other ranks first."""

    _steps: RankSteps

    def new_pool(self, num_pages: int) -> PagePool:
        """A page pool, on every rank."""
        assert self.group is not None
        pool = super().new_pool(num_pages)
        self._steps = RankSteps(self.group)
        self._steps.tell_pool(pool)
        return pool

    @torch.inference_mode()
    def run(
        self, pool: PagePool, batch: Sequence[RequestRows], segments: Sequence[LayerSegment] | None = None
    ) -> list[torch.Tensor]:
        """As in `ModelLayers`, on every rank; the results are those of rank 0."""
        self._steps.tell_step(batch)
        return super().run(pool, batch, segments)
