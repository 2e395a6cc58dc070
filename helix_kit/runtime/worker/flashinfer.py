"""Attention by FlashInfer's kernels, which read keys and values from the pages instead of gathering them first.

An optional extra for CUDA devices (``pip install 'helix-kit[flashinfer]'``). Our pools are what FlashInfer calls a
paged KV cache in layout NHD: (pages, 16, kv heads, head dim), with keys apart from values. Its page table is CSR:
request r owns ``indices[indptr[r] : indptr[r + 1]]``, and its last page holds ``last_page_len[r]`` tokens.

A page belongs to one layer, so each layer has its own indices, while the lengths are the same in all layers of a step.
FlashInfer's `plan` balances the work over the GPU. It takes time on the host, depends on the lengths only, and cannot
be captured. So it is called once for a step, before the step runs or its graph is replayed (`prepare`). Each layer's
indices are picked on the device, from the block tables that lie there, into the tensor that the wrapper reads.

- Steps of decodes run through a wrapper with ``use_cuda_graph`` for each size of a step, over buffers whose addresses
  never change. Their graphs are captured.
- Steps with prefill chunks run eagerly and without padding: FlashInfer launches as many programs as their lengths need.

Source: code of FlashInfer 0.7.2 and its documentation (docs.flashinfer.ai). The README says on which GPUs it was run.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from helix_kit.runtime.worker.kv_cache import PAGE_TOKENS, PagedRows
from helix_kit.runtime.worker.static_batch import MAX_REQUESTS, DeviceTables, HeadShape, LayerCache, StaticBatch
from helix_kit.runtime.worker.step_kernels import PagedAttention
from helix_kit.runtime.worker.transfer import to_device

WORKSPACE_BYTES = 128 << 20
"""Size of the buffer for intermediate results that FlashInfer's documentation recommends."""
HEAD_DIMS = (64, 128, 256)
MIN_CAPABILITY, MIN_CAPABILITY_BFLOAT16 = (7, 5), (8, 0)
"""Lowest compute capabilities: Turing, and Ampere for bfloat16."""
CUDA_CORE_RATIOS = (1, 2, 3)
"""Query heads per key head for which decoding runs on CUDA cores; with more of them tensor cores are used."""


def why_unavailable(dtype: torch.dtype, device: torch.device, head_dim: int) -> str | None:
    """The reason why FlashInfer cannot be used here; None if it can."""
    if device.type != "cuda":
        return f"it needs a CUDA device, and this worker computes on {device.type}"
    if dtype not in (torch.float16, torch.bfloat16):
        return f"its kernels compute in float16 and bfloat16, not {str(dtype).removeprefix('torch.')}"
    if head_dim not in HEAD_DIMS:
        return f"its kernels have heads of {', '.join(map(str, HEAD_DIMS))} values, the model's have {head_dim}"
    capability, needed = torch.cuda.get_device_capability(device), MIN_CAPABILITY
    if dtype == torch.bfloat16:
        needed = MIN_CAPABILITY_BFLOAT16
    if capability < needed:
        name = torch.cuda.get_device_name(device)
        need, has = (".".join(map(str, pair)) for pair in (needed, capability))
        return f"in {str(dtype).removeprefix('torch.')} it needs compute capability {need}, and {name} has {has}"
    if importlib.util.find_spec("flashinfer") is None:
        return "it is not installed: pip install 'helix-kit[flashinfer]'"
    return None


def about_compiling() -> str:
    """How long FlashInfer's kernels take at a first start, and where it keeps them for the next one."""
    folder = Path(os.environ.get("FLASHINFER_WORKSPACE_BASE") or Path.home()) / ".cache" / "flashinfer"
    return f"compiling them takes minutes at the first start, and {folder} keeps them"


@dataclass(frozen=True)
class PageArrays:
    """A step in FlashInfer's arrays: int32, on the host."""

    qo_indptr: np.ndarray
    """(requests + 1,): request r has the rows [qo_indptr[r], qo_indptr[r + 1]) of the step."""
    kv_indptr: np.ndarray
    """(requests + 1,): request r has the pages [kv_indptr[r], kv_indptr[r + 1]) of each layer."""
    last_page_len: np.ndarray
    """(requests,): tokens in the last page of each request, 1 to 16."""
    places: np.ndarray
    """(pages,): where each page's number stands in the block tables, counted from the first table's first page."""


def page_arrays(
    tables: DeviceTables, table_rows: Sequence[int], requests: Sequence[PagedRows], padding: int = 0
) -> PageArrays:
    """Arrays of a step, and of `padding` rows behind it, each a request of one token in the padding page."""
    tokens = np.array([request.tokens for request in requests] + padding * [1], dtype=np.int64)
    positions = np.array([request.position for request in requests] + padding * [0], dtype=np.int64)
    rows = np.array([*table_rows, *padding * [tables.padding_row]], dtype=np.int64)
    seen = positions + tokens
    pages = -(-seen // PAGE_TOKENS)
    kv_indptr = np.concatenate([[0], pages.cumsum()])
    within = np.arange(kv_indptr[-1]) - np.repeat(kv_indptr[:-1], pages)
    return PageArrays(
        qo_indptr=np.concatenate([[0], tokens.cumsum()]).astype(np.int32),
        kv_indptr=kv_indptr.astype(np.int32),
        last_page_len=((seen - 1) % PAGE_TOKENS + 1).astype(np.int32),
        places=(np.repeat(rows, pages) * tables.pages.stride(0) + within).astype(np.int32),
    )


class LayerKind(NamedTuple):
    """What a wrapper is planned for beside the lengths: layers of one model may differ in it."""

    window_left: int
    """Tokens before a row's own that it sees; -1: all."""
    scaling: float | None


@dataclass
class DecodeBuffers:
    """Tensors of decode steps of one size, whose addresses never change."""

    indptr: torch.Tensor
    last_page_len: torch.Tensor
    wrappers: dict[LayerKind, Any] = field(default_factory=dict)


@dataclass
class ChunkStep:
    """A step with prefill chunks: its arrays, where its pages are named, and the wrappers that were planned for it."""

    arrays: PageArrays
    places: torch.Tensor
    planned: dict[LayerKind, tuple[Any, torch.Tensor]] = field(default_factory=dict)
    """By kind of layer: the wrapper, and the tensor of page numbers that it was given."""


class FlashInferAttention(PagedAttention):
    """FlashInfer's wrappers for one worker.

    Parameters
    ----------
    library
        The module `flashinfer`, or a stand-in in tests.
    dtype, device
        Of queries, keys and values.
    heads
        The model's heads.
    """

    name = "flashinfer"
    captures_chunks = False

    def __init__(self, library: Any, dtype: torch.dtype, device: torch.device, heads: HeadShape) -> None:
        self._library, self._dtype, self._device, self._heads = library, dtype, device, heads
        self._workspace = torch.empty(WORKSPACE_BYTES if device.type == "cuda" else 1, dtype=torch.uint8, device=device)
        self._tables: DeviceTables | None = None
        self._decodes: dict[int, DecodeBuffers] = {}
        """By the rows of a step."""
        self._decode_arrays: PageArrays | None = None
        self._chunk_wrappers: dict[LayerKind, Any] = {}
        self._chunks: ChunkStep | None = None
        self._read: dict[int, torch.cuda.Event] = {}
        """By wrapper: when its last `plan` has read its pinned buffer, which the next `plan` writes again."""

    def prepare(
        self, tables: DeviceTables, rows: int, table_rows: Sequence[int], requests: Sequence[PagedRows], *, decode: bool
    ) -> None:
        """Plan the step for all kinds of layers that were met so far, and send where its pages are named."""
        if not decode:
            arrays = page_arrays(tables, table_rows, requests)
            self._chunks = ChunkStep(arrays, to_device(torch.from_numpy(arrays.places), self._device))
            return
        if tables is not self._tables:
            self._begin(tables)
        arrays = self._decode_arrays = page_arrays(tables, table_rows, requests, rows - len(requests))
        self._places[: len(arrays.places)].copy_(to_device(torch.from_numpy(arrays.places), self._device))
        for kind, wrapper in self._decodes_of(rows).wrappers.items():
            self._plan_decodes(wrapper, kind)

    def _begin(self, tables: DeviceTables) -> None:
        """Make the buffers that the graphs read: as many page numbers as the largest step of decodes may have."""
        self._tables = tables
        most = MAX_REQUESTS * tables.max_pages
        self._places, self._indices = (torch.zeros(most, dtype=torch.int32, device=self._device) for _ in range(2))
        self._decodes.clear()

    def attend(
        self, query: torch.Tensor, cache: LayerCache, batch: StaticBatch, scaling: float | None, window: int | None
    ) -> torch.Tensor:
        """As `torch_kernels.attend`."""
        kind = LayerKind(-1 if window is None else window - 1, scaling)
        # The layer's block tables from the first one on, as one row of numbers.
        named = cache.table.as_strided((cache.table.stride(0) * (len(cache.table) - 1) + cache.table.shape[1],), (1,))
        query, pool = query.contiguous(), (cache.keys, cache.values)
        if batch.is_decode:
            wrapper = self._decode_wrapper(len(query), kind)
            most = len(query) * cache.table.shape[1]
            torch.index_select(named, 0, self._places[:most], out=self._indices[:most])
            decoded: torch.Tensor = wrapper.run(query, pool)
            return decoded
        step = self._chunks
        assert step is not None, "a step is prepared before it runs"
        pages = named.index_select(0, step.places)
        known = step.planned.get(kind)
        if known is None or not _reads(*known):
            known = step.planned[kind] = self._plan_chunks(step.arrays, kind, pages)
        else:
            known[1].copy_(pages)
        attended: torch.Tensor = known[0].run(query, pool)
        return attended

    def _decodes_of(self, rows: int) -> DecodeBuffers:
        if rows not in self._decodes:
            indptr, lengths = (torch.zeros(n, dtype=torch.int32, device=self._device) for n in (rows + 1, rows))
            self._decodes[rows] = DecodeBuffers(indptr, lengths)
        return self._decodes[rows]

    def _decode_wrapper(self, rows: int, kind: LayerKind) -> Any:
        """The planned wrapper of a step. A kind of layers that is met for the first time is planned here.

        That happens in the eager run before a capture, since each size of a step is run once before it is captured.
        """
        buffers = self._decodes_of(rows)
        if kind not in buffers.wrappers:
            # The backend fa2 runs on all devices from Turing on.
            wrapper = self._library.BatchDecodeWithPagedKVCacheWrapper(
                self._workspace,
                "NHD",
                use_cuda_graph=True,
                use_tensor_cores=self._heads.num_heads // self._heads.num_kv_heads not in CUDA_CORE_RATIOS,
                paged_kv_indptr_buffer=buffers.indptr,
                paged_kv_indices_buffer=self._indices,
                paged_kv_last_page_len_buffer=buffers.last_page_len,
                backend="fa2",
            )
            buffers.wrappers[kind] = wrapper
            self._plan_decodes(wrapper, kind)
        return buffers.wrappers[kind]

    def _plan_decodes(self, wrapper: Any, kind: LayerKind) -> None:
        arrays = self._decode_arrays
        assert arrays is not None, "a step is prepared before it runs"
        self._await(wrapper)
        # `plan` copies the page numbers; those of each layer take their place before it runs.
        pages = self._places[: len(arrays.places)]
        lengths = (torch.from_numpy(arrays.kv_indptr), pages, torch.from_numpy(arrays.last_page_len))
        wrapper.plan(*lengths, *self._shape(), **self._settings(kind))
        self._note(wrapper)

    def _plan_chunks(self, arrays: PageArrays, kind: LayerKind, pages: torch.Tensor) -> tuple[Any, torch.Tensor]:
        wrapper = self._chunk_wrappers.get(kind)
        if wrapper is None:
            wrapper = self._library.BatchPrefillWithPagedKVCacheWrapper(self._workspace, "NHD", backend="fa2")
            self._chunk_wrappers[kind] = wrapper
        self._await(wrapper)
        lengths = (torch.from_numpy(arrays.kv_indptr), pages, torch.from_numpy(arrays.last_page_len))
        wrapper.plan(torch.from_numpy(arrays.qo_indptr), *lengths, *self._shape(), causal=True, **self._settings(kind))
        self._note(wrapper)
        return wrapper, pages

    def _shape(self) -> tuple[int, int, int, int]:
        return (*self._heads, PAGE_TOKENS)

    def _settings(self, kind: LayerKind) -> dict[str, Any]:
        return {
            "q_data_type": self._dtype,
            "kv_data_type": self._dtype,
            "sm_scale": kind.scaling,
            "window_left": kind.window_left,
        }

    def _await(self, wrapper: Any) -> None:
        if (event := self._read.get(id(wrapper))) is not None:
            event.synchronize()

    def _note(self, wrapper: Any) -> None:
        if self._device.type == "cuda":
            event = self._read[id(wrapper)] = torch.cuda.Event()
            event.record(torch.cuda.current_stream(self._device))


def _reads(wrapper: Any, pages: torch.Tensor) -> bool:
    """Whether a wrapper reads that very tensor when it runs. Otherwise each layer must be planned."""
    kept = getattr(wrapper, "_paged_kv_indices_buf", None)
    return kept is not None and kept.data_ptr() == pages.data_ptr()


def make_attention(dtype: torch.dtype, device: torch.device, heads: HeadShape) -> FlashInferAttention:
    """FlashInfer's attention for one worker, where `why_unavailable` has no objection."""
    return FlashInferAttention(importlib.import_module("flashinfer"), dtype, device, heads)
