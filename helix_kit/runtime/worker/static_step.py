"""Runs steps over static buffers: eagerly, or on a CUDA device as a replay of a graph that was captured once.

A graph belongs to a segment of layers and a number of rows (bucket). The usual step has one segment, all layers of the
worker. A request that enters mid-range makes another one. Its graph is captured when it is first met, and the graphs
that were not used for the longest time are dropped.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from helix_kit.runtime.worker.kv_cache import PagedRows, PagePool
from helix_kit.runtime.worker.static_batch import (
    MAX_REQUESTS,
    DeviceTables,
    StaticBatch,
    StepBuffers,
    bucket_of,
    buckets_up_to,
)
from helix_kit.runtime.worker.step_kernels import StepKernels

log = logging.getLogger(__name__)

SPARE_TABLE_ROWS = 64
MAX_GRAPHS = 96
DETERMINISTIC_ROWS = 256
"""Rows of every run where the bits of a row must not depend on the rows beside it: a library chooses how it computes a
product by its number of rows. On an H100 256 rows take 1.45 times as long as one (layers of Llama-3.1-8B, bfloat16)."""

RunLayers = Callable[[torch.Tensor, StaticBatch, int, int], torch.Tensor]
"""Takes hidden states (rows, hidden size), the batch and a segment [start, end); returns new hidden states."""


@dataclass(frozen=True, slots=True)
class StepOptions:
    """How steps are run on a GPU.

    Parameters
    ----------
    max_rows
        Rows of one run over static buffers. Longer steps are run in parts.
    graphs
        Whether runs are captured as CUDA graphs.
    kernels
        What a step calls; None: what suits the attention that is chosen. If they are given, layers run over static
        buffers on a CPU, too, as tests do.
    deterministic
        Whether a request must get the same bits whatever else is in its steps. Every run then has the same number of
        rows, and no context is split into parts.
    """

    max_rows: int = 512
    graphs: bool = True
    kernels: StepKernels | None = None
    deterministic: bool = False

    @property
    def run_rows(self) -> int:
        """Rows of one run at most; of every run, if it must be deterministic."""
        return min(self.max_rows, DETERMINISTIC_ROWS) if self.deterministic else self.max_rows


class StaticStep:
    """Steps of one worker over one page pool.

    Parameters
    ----------
    run_layers
        Runs a segment of the worker's layers over a `StaticBatch`.
    pool
        Pages of the worker.
    layers
        Layers [start, end) of the worker.
    options
        Rows of a run, whether to capture, and the kernels.
    max_pages
        Pages of one layer of a request at most.
    hidden_size
        Width of a row.
    block_rows
        Rows that one block of the attention kernel takes.
    """

    def __init__(
        self,
        run_layers: RunLayers,
        pool: PagePool,
        layers: tuple[int, int],
        options: StepOptions,
        *,
        max_pages: int,
        hidden_size: int,
        block_rows: int,
    ) -> None:
        assert options.kernels is not None
        self._run_layers, self._layers = run_layers, layers
        self._attention = options.kernels.attention
        self._deterministic = options.deterministic
        self._tables = DeviceTables(pool, layers, MAX_REQUESTS + SPARE_TABLE_ROWS, max_pages)
        self._buffers = StepBuffers(
            self._tables, pool, layers[0], options.run_rows, hidden_size, options.kernels, block_rows
        )
        self.captures = options.graphs and pool.keys.device.type == "cuda"
        self._graphs: OrderedDict[tuple[int, int, int, bool], torch.cuda.CUDAGraph] = OrderedDict()
        """By segment, rows, and whether all rows decode; the one used last stands last."""
        self._memory = torch.cuda.graph_pool_handle() if self.captures else None

    def run(self, hidden: torch.Tensor, requests: Sequence[PagedRows], start: int, end: int) -> torch.Tensor:
        """Take the rows of `requests`, side by side in `hidden`, through the layers [start, end).

        The result is overwritten by the next call.
        """
        buffers = self._buffers
        groups = list(_groups(requests, buffers.max_rows))
        if len(groups) == 1:
            return self._run_group(hidden, groups[0], start, end)
        results, at = [], 0
        for group in groups:
            rows = sum(request.tokens for request in group)
            results.append(self._run_group(hidden[at : at + rows], group, start, end).clone())
            at += rows
        return torch.cat(results)

    def _run_group(self, hidden: torch.Tensor, requests: Sequence[PagedRows], start: int, end: int) -> torch.Tensor:
        buffers = self._buffers
        rows = sum(request.tokens for request in requests)
        # What a row's bits are must not depend on whether others prefill: all runs are then of the kind that can.
        decode = rows == len(requests) and not self._deterministic
        padded = self._padded(rows, decode=decode)
        # Row 0 of a request's table stands for its first layer here, which may lie before the segment.
        table_rows = self._tables.rows_of([(request.table, start - request.layer_offset) for request in requests])
        buffers.fill(padded, table_rows, requests, decode=decode)
        self._attention.prepare(self._tables, padded, table_rows, requests, decode=decode)
        buffers.hidden_in[:rows].copy_(hidden)
        if padded > rows:
            buffers.hidden_in[rows:padded].zero_()
        self._step(start, end, padded, decode)
        return buffers.hidden_out[:rows]

    def _padded(self, rows: int, *, decode: bool) -> int:
        if self._deterministic:
            return self._buffers.max_rows
        return bucket_of(rows, decode=decode) if self._is_fixed(decode) else rows

    def _is_fixed(self, decode: bool) -> bool:
        """Whether a step of this kind is of a size that a graph can be captured for."""
        return decode or self._attention.captures_chunks

    def _step(self, start: int, end: int, rows: int, decode: bool) -> None:
        """Take what the buffers hold through a segment: a replay of its graph, which is captured at the first time."""
        if not self.captures or not self._is_fixed(decode):
            self._run(start, end, rows, decode)
            return
        key = (start, end, rows, decode)
        if key not in self._graphs:
            self._graphs[key] = self._capture(*key)
            if len(self._graphs) > MAX_GRAPHS:
                self._graphs.popitem(last=False)
        self._graphs.move_to_end(key)
        self._graphs[key].replay()

    def _run(self, start: int, end: int, rows: int, decode: bool) -> None:
        buffers = self._buffers
        hidden = self._run_layers(buffers.hidden_in[:rows].clone(), buffers.batch(rows, decode=decode), start, end)
        buffers.hidden_out[:rows].copy_(hidden)

    def _capture(self, start: int, end: int, rows: int, decode: bool) -> torch.cuda.CUDAGraph:
        # Kernels are compiled, and libraries choose theirs, in a first run: neither may happen during the capture.
        self._run(start, end, rows, decode)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._memory, capture_error_mode="thread_local"):
            self._run(start, end, rows, decode)
        return graph

    def warm_up(self, max_decodes: int, progress: Callable[[int, int], None]) -> None:
        """Capture the graphs of all steps through all layers, for up to `max_decodes` requests that decode."""
        most = self._buffers.max_rows
        if self._deterministic:
            sizes = [(most, False)]
        else:
            sizes = [(rows, True) for rows in buckets_up_to(min(max_decodes, MAX_REQUESTS), decode=True)]
            if self._attention.captures_chunks:
                sizes += [(rows, False) for rows in buckets_up_to(most, decode=False)]
        start, end = self._layers
        # The largest first: the smaller ones then fit into the memory that they share.
        for done, (rows, decode) in enumerate(sorted(sizes, reverse=True)):
            progress(done, len(sizes))
            self._buffers.fill(rows, [], [], decode=decode)
            self._attention.prepare(self._tables, rows, [], [], decode=decode)
            self._step(start, end, rows, decode)
        progress(len(sizes), len(sizes))


def _groups(requests: Sequence[PagedRows], max_rows: int) -> Iterator[list[PagedRows]]:
    """Split a step into runs of at most `max_rows` rows and MAX_REQUESTS requests; a request with more rows is cut."""
    group: list[PagedRows] = []
    rows = 0
    for left in requests:
        while left.tokens > max_rows:
            if group:
                yield group
                group, rows = [], 0
            yield [left._replace(tokens=max_rows)]
            left = left._replace(position=left.position + max_rows, tokens=left.tokens - max_rows)  # noqa: PLW2901
        if group and (len(group) == MAX_REQUESTS or rows + left.tokens > max_rows):
            yield group
            group, rows = [], 0
        group.append(left)
        rows += left.tokens
    if group:
        yield group
