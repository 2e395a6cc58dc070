"""One step's rows in tensors whose addresses never change, so that a CUDA graph of the step can be replayed.

What a step knows of its rows is a handful of int32 arrays: the position of each row, the row of the block table that
its request has, the length that its rotary frequencies are for, and, for steps with prefill chunks, the blocks of rows
that are attended together. They are written on
the host, and one copy brings all of them to the device. The block tables stay on the device (`DeviceTables`): only
pages that a request has taken since its last step are sent.

Steps are padded to a few sizes (buckets). Padding rows belong to no request: they read position 0 of a table row that
holds the padding page only, and nothing reads what they write.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from helix_kit.errors import HelixKitError
from helix_kit.runtime.worker.kv_cache import PAGE_TOKENS, BlockTable, PagedRows, PagePool
from helix_kit.runtime.worker.transfer import to_device

MAX_REQUESTS = 256
"""Requests that one run of the static step takes; a step with more of them is run in parts."""
MIN_BLOCK_ROWS = 16
"""Rows of a block at least: `tl.dot` needs 16."""
BLOCK_QUERIES = 64
"""Queries (rows times query heads of one key head) that a block aims at."""
DECODE_BUCKETS = (1, 2, 4, *range(8, 64, 8), *range(64, 128, 16), *range(128, 257, 32))
MIXED_BUCKETS = (16, 32, *range(64, 512, 64))
"""Rows of a padded step: larger steps are padded to multiples of the last difference."""

MAX_SPLITS = 32
"""Parts of one request's context at most that are attended side by side."""
PROGRAMS_PER_PROCESSOR = 4
"""Programs of the decode kernel for each multiprocessor, from which on a context is not split any further."""


class HeadShape(NamedTuple):
    """Heads of a model's attention."""

    num_heads: int
    num_kv_heads: int
    head_dim: int

    @property
    def block_rows(self) -> int:
        """Rows that one block of the attention kernel takes."""
        group = 1 << (self.num_heads // self.num_kv_heads - 1).bit_length()
        return max(MIN_BLOCK_ROWS, BLOCK_QUERIES // group)


class LayerCache(NamedTuple):
    """Pages of one layer as a step's kernels see them."""

    keys: torch.Tensor
    values: torch.Tensor
    """(pages, 16, kv heads, head dim): the whole pool."""
    table: torch.Tensor
    """(table rows, pages of a request at most), int32: pages of each request in this layer."""
    table_rows: torch.Tensor
    """(rows,), int32: the table row of each row's request."""
    positions: torch.Tensor
    """(rows,), int32."""


class Sequences(NamedTuple):
    """Rows of a step by request, for attention that takes each request as a sequence. All tensors are int32."""

    starts: torch.Tensor
    """(sequences + 1,): sequence i has the rows [starts[i], starts[i + 1]); those that pad the step have no rows."""
    seen: torch.Tensor
    """(sequences,): tokens up to the last row of each, itself included."""
    table_rows: torch.Tensor
    """(sequences,): the row of the block table of each."""
    longest: int
    """Rows of a sequence at most."""

    @property
    def key_starts(self) -> torch.Tensor:
        """(sequences + 1,): as `starts`, where all tokens that the sequences see lie one behind the other."""
        return F.pad(self.seen.cumsum(0, dtype=torch.int32), (1, 0))


def bucket_of(rows: int, *, decode: bool) -> int:
    """The number of rows that a step with `rows` rows is padded to.

    >>> [bucket_of(rows, decode=True) for rows in (1, 3, 33)]
    [1, 4, 40]
    >>> [bucket_of(rows, decode=False) for rows in (2, 300, 2000)]
    [16, 320, 2048]
    """
    buckets = DECODE_BUCKETS if decode else MIXED_BUCKETS
    for size in buckets:
        if rows <= size:
            return size
    step = buckets[-1] - buckets[-2]
    return -(-rows // step) * step


def buckets_up_to(rows: int, *, decode: bool) -> list[int]:
    """All buckets of steps with up to `rows` rows.

    >>> buckets_up_to(9, decode=True), buckets_up_to(100, decode=False)
    ([1, 2, 4, 8, 16], [16, 32, 64, 128])
    """
    found = [0]
    while found[-1] < rows:
        found.append(bucket_of(found[-1] + 1, decode=decode))
    return found[1:]


def num_splits(rows: int, kv_heads: int, processors: int) -> int:
    """Into how many parts each context is split, so that all multiprocessors have work: a power of two.

    >>> num_splits(rows=1, kv_heads=8, processors=132), num_splits(rows=64, kv_heads=8, processors=132)
    (32, 1)
    """
    wanted = processors * PROGRAMS_PER_PROCESSOR // (rows * kv_heads)
    return max(1, min(MAX_SPLITS, 1 << max(0, wanted.bit_length() - 1)))


class DeviceTables:
    """Block tables on the device, one row for each of the requests that were in a step most recently.

    Parameters
    ----------
    pool
        Pool whose pages the tables name.
    layers
        Layers [start, end) of the worker.
    num_rows
        Rows for requests: at least as many as a step may have requests.
    max_pages
        Pages of one layer of a request at most.
    """

    def __init__(self, pool: PagePool, layers: tuple[int, int], num_rows: int, max_pages: int) -> None:
        self._start, end = layers
        self._device = pool.keys.device
        self.padding_row = num_rows
        shape = (num_rows + 1, end - self._start, max_pages)
        self.pages = torch.full(shape, pool.padding_page, dtype=torch.int32, device=self._device)
        self.max_pages = max_pages
        self._free = list(range(num_rows))
        self._rows: OrderedDict[BlockTable, tuple[int, int, int]] = OrderedDict()
        """Table -> (row, pages of a layer that are on the device, `releases` of the table at that time)."""

    def rows_of(self, requests: Sequence[tuple[BlockTable, int]]) -> list[int]:
        """The rows of these requests, each given by its table and its first layer, after new pages were sent."""
        rows, missing = [], []
        for table, first_layer in requests:
            have = table.pages.shape[1]
            if have > self.max_pages:
                raise HelixKitError(f"a request has {have} pages in each layer: expected at most {self.max_pages}")
            row, known, releases = self._rows.pop(table, (-1, 0, 0))
            if row < 0:
                row = self._free.pop() if self._free else self._rows.popitem(last=False)[1][0]
            elif releases != table.releases:
                known = 0
            if known < have:
                missing.append((row, first_layer - self._start, known, table.pages[:, known:]))
            self._rows[table] = (row, have, table.releases)
            rows.append(row)
        if missing:
            self._send(missing)
        return rows

    def _send(self, missing: list[tuple[int, int, int, np.ndarray]]) -> None:
        """Write pages (layers, new pages) of several requests to their places: one copy, one kernel."""
        _, num_layers, width = self.pages.shape
        places, pages = [], []
        for row, layer, known, new in missing:
            at = (row * num_layers + layer + np.arange(new.shape[0]))[:, None] * width + known
            places.append((at + np.arange(new.shape[1])).ravel())
            pages.append(new.ravel())
        packed = torch.from_numpy(np.stack([np.concatenate(places), np.concatenate(pages)]))
        place, page = to_device(packed, self._device)
        self.pages.view(-1).index_put_((place,), page.int())


@dataclass(frozen=True)
class StaticBatch:
    """The arrays of a step of one size, on the device: what the kernels read."""

    positions: torch.Tensor
    """(rows,), int32."""
    table_rows: torch.Tensor
    """(rows,), int32."""
    rotary_tokens: torch.Tensor
    """(rows,), int32: tokens of the sequence that the rotary frequencies of each row are for, at least."""
    block_starts: torch.Tensor
    """(blocks,), int32: first row of each block."""
    block_sizes: torch.Tensor
    """(blocks,), int32: rows of each block; 0: the block is padding."""
    block_rows: int
    is_decode: bool
    """Every row is the only one of its request: there are no blocks."""
    pool: PagePool
    tables: DeviceTables
    start: int
    """First layer of the worker, which row 0 of each table stands for."""
    kernels: Any
    """The `StepKernels` that run over it, whose attention takes the batch in turn."""

    @functools.cached_property
    def sequences(self) -> Sequences:
        """The rows by request. A block must hold all rows of its request (`PagedAttention.takes_whole_requests`)."""
        if self.is_decode:
            rows = len(self.positions)
            starts = torch.arange(rows + 1, dtype=torch.int32, device=self.positions.device)
            return Sequences(starts, self.positions + 1, self.table_rows, 1)
        sizes = self.block_sizes[:MAX_REQUESTS]
        starts = F.pad(sizes.cumsum(0, dtype=torch.int32), (1, 0))
        # A sequence without rows ends where the one before it does: its last row is that one's.
        last = (starts[1:] - 1).clamp(min=0)
        seen, table_rows = self.positions.index_select(0, last) + 1, self.table_rows.index_select(0, last)
        return Sequences(starts, seen, table_rows, len(self.positions))

    def cache(self, layer: int) -> LayerCache:
        """The pages of a layer, by its index in the model."""
        table = self.tables.pages[:, layer - self.start]
        return LayerCache(self.pool.keys, self.pool.values, table, self.table_rows, self.positions)


class StepBuffers:
    """Static tensors for steps of up to `max_rows` rows, and their copies on the host.

    `fill` writes a step on the host and sends it; `batch` gives the views of a bucket, always the same ones.
    """

    def __init__(
        self,
        tables: DeviceTables,
        pool: PagePool,
        start: int,
        max_rows: int,
        hidden_size: int,
        kernels: Any,
        block_rows: int,
    ) -> None:
        device, dtype = pool.keys.device, pool.keys.dtype
        self._tables, self._pool, self._start = tables, pool, start
        self.max_rows = bucket_of(max_rows, decode=False)
        self._block_rows = self.max_rows if kernels.attention.takes_whole_requests else block_rows
        self._kernels = kernels
        self.hidden_in = torch.zeros(self.max_rows, hidden_size, dtype=dtype, device=device)
        self.hidden_out = torch.zeros_like(self.hidden_in)
        sizes = (*3 * (self.max_rows,), *2 * (self._num_blocks(self.max_rows),))
        self._places: list[int] = np.cumsum([0, *sizes]).tolist()
        self._ints = torch.zeros(self._places[-1], dtype=torch.int32, device=device)
        # Two copies on the host: the device may still read one while the next step is written.
        pinned = device.type == "cuda"
        self._host = [torch.zeros(len(self._ints), dtype=torch.int32, pin_memory=pinned) for _ in range(2)]
        self._arrays = [host.numpy() for host in self._host]
        self._read: list[torch.cuda.Event | None] = [torch.cuda.Event() if pinned else None for _ in range(2)]
        """Reached when the device has read that copy; an event that was never recorded is reached."""
        self._turn = 0

    def _num_blocks(self, rows: int) -> int:
        # Each request may leave one block that is not full.
        return -(-rows // self._block_rows) + rows

    def batch(self, rows: int, *, decode: bool) -> StaticBatch:
        """Views of the first `rows` rows."""
        counts = (*3 * (rows,), *2 * (0 if decode else self._num_blocks(rows),))
        parts = (self._ints[at : at + n] for at, n in zip(self._places, counts))
        positions, table_rows, lengths, starts, sizes = parts
        return StaticBatch(
            positions=positions,
            table_rows=table_rows,
            rotary_tokens=lengths,
            block_starts=starts,
            block_sizes=sizes,
            block_rows=self._block_rows,
            is_decode=decode,
            pool=self._pool,
            tables=self._tables,
            start=self._start,
            kernels=self._kernels,
        )

    def fill(self, rows: int, table_rows: Sequence[int], requests: Sequence[PagedRows], *, decode: bool) -> None:
        """Write a step padded to `rows` rows: the rows of `requests`, each of which has a row of the block tables.

        `decode`: each request has one row, and the step needs no blocks.
        """
        positions, tokens = [request.position for request in requests], [request.tokens for request in requests]
        lengths = [request.rotary_tokens for request in requests]
        array, event, at = self._arrays[self._turn], self._read[self._turn], self._places
        if event is not None:
            event.synchronize()
        own_positions, own_rows, own_lengths = (array[first : first + rows] for first in at[:3])
        real = sum(tokens)
        if real < rows:
            own_positions[real:] = 0
            own_rows[real:] = self._tables.padding_row
            own_lengths[real:] = 0
        if decode:
            own_positions[:real] = positions
            own_rows[:real] = table_rows
            own_lengths[:real] = lengths
        else:
            counts = np.asarray(tokens, dtype=np.int64)
            ends = np.cumsum(counts)
            within = np.arange(real) - np.repeat(ends - counts, counts)
            own_positions[:real] = np.repeat(positions, counts) + within
            own_rows[:real] = np.repeat(table_rows, counts)
            own_lengths[:real] = np.repeat(lengths, counts)
            starts = np.flatnonzero(within % self._block_rows == 0)
            left = np.repeat(counts, counts)[starts] - within[starts]
            num_blocks = self._num_blocks(rows)
            block_starts, block_sizes = (array[first : first + num_blocks] for first in at[3:5])
            block_starts[: len(starts)] = starts
            block_sizes[: len(starts)] = np.minimum(left, self._block_rows)
            block_sizes[len(starts) :] = 0
        self._ints.copy_(self._host[self._turn], non_blocking=True)
        if event is not None:
            event.record()
        self._turn = 1 - self._turn


def max_pages_of(max_tokens: int, pool: PagePool) -> int:
    """Pages of one layer that a request may take: of the model's longest context, or of the whole pool."""
    return max(1, min(-(-max_tokens // PAGE_TOKENS), pool.num_pages))
