"""Attention by FlashInfer's kernels, which read keys and values from the pages instead of gathering them first.

An optional extra for CUDA devices (``pip install 'helix-kit[flashinfer]'``); `helix_kit.runtime.worker.attention`
computes the same with torch alone. Our pools are what FlashInfer calls a paged KV cache in layout NHD: (pages, 16,
kv heads, head dim), with keys apart from values. Its page table is CSR:
request r owns ``indices[indptr[r] : indptr[r + 1]]``, and its last page
holds ``last_page_len[r]`` tokens.

A page belongs to one layer, so each layer has its own indices, while the lengths are the same in all layers of a step.
FlashInfer's `plan` balances the work over the GPU. It takes time, and it depends on the lengths only. So it is called
once for a segment of layers; before each layer, that layer's indices are copied into the tensor that `plan` was given.
This works because FlashInfer keeps using that very tensor if it is on the right device; else each layer is planned.

Source: code of FlashInfer 0.7.2 and its documentation (docs.flashinfer.ai). The README says on which GPUs it was run.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from helix_kit.runtime.worker.kv_cache import PAGE_TOKENS, PagedRows, PagePool
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


def make_backend(
    dtype: torch.dtype, device: torch.device, num_heads: int, num_kv_heads: int, head_dim: int
) -> FlashInfer:
    """The backend for one worker, where `why_unavailable` has no objection."""
    library = importlib.import_module("flashinfer")
    return FlashInfer(library, dtype, device, num_heads=num_heads, num_kv_heads=num_kv_heads, head_dim=head_dim)


@dataclass(frozen=True)
class PageArrays:
    """The decodes or the prefill chunks of a step in FlashInfer's arrays: int32, on the host."""

    rows: np.ndarray
    """(rows,): the places of these rows among all rows of the step, in order."""
    qo_indptr: np.ndarray
    """(requests + 1,): request r has the rows [qo_indptr[r], qo_indptr[r + 1]) of these."""
    kv_indptr: np.ndarray
    """(requests + 1,): request r has the pages [kv_indptr[r], kv_indptr[r + 1]) of each layer's `indices`."""
    indices: np.ndarray
    """(layers, pages)."""
    last_page_len: np.ndarray
    """(requests,): tokens in the last page of each request, 1 to 16."""


def page_arrays(num_layers: int, rows: Sequence[PagedRows], *, decode: bool) -> PageArrays | None:
    """Arrays of the requests that decode (one row each), or of those that prefill; None if there are none."""
    picked, pages, lengths, tokens_of, row = [], [], [], [], 0
    for table, offset, position, tokens, _ in rows:
        if (tokens == 1) == decode:
            seen = position + tokens
            picked.append(np.arange(row, row + tokens))
            pages.append(table.pages[offset : offset + num_layers, : -(-seen // PAGE_TOKENS)])
            lengths.append((seen - 1) % PAGE_TOKENS + 1)
            tokens_of.append(tokens)
        row += tokens
    if not picked:
        return None
    return PageArrays(
        rows=np.concatenate(picked).astype(np.int32),
        qo_indptr=np.cumsum([0, *tokens_of], dtype=np.int32),
        kv_indptr=np.cumsum([0, *(part.shape[1] for part in pages)], dtype=np.int32),
        indices=np.concatenate(pages, axis=1).astype(np.int32),
        last_page_len=np.array(lengths, dtype=np.int32),
    )


@dataclass
class RowGroup:
    """The decodes or the prefill chunks of a step's segment, with their page indices on the device."""

    arrays: PageArrays
    decode: bool
    rows: torch.Tensor | None
    """Places of these rows in the step; None: they are the whole step, in order."""
    indices: torch.Tensor
    """(layers, pages)."""
    planned: dict[tuple[int, float | None], PlannedWrapper] = field(default_factory=dict)
    """By window and scale: layers of one model may differ in them."""


@dataclass
class PlannedWrapper:
    """A wrapper that was given the step's lengths, and the tensor of page indices that it was given with them."""

    wrapper: Any
    indices: torch.Tensor
    reads_indices: bool
    """Whether the wrapper reads that very tensor when it runs. Otherwise each layer must be planned."""


@dataclass
class PagedStep:
    """A segment of a step, laid out for FlashInfer."""

    backend: FlashInfer
    pool: PagePool
    groups: list[RowGroup]

    def attend(self, layer: int, query: torch.Tensor, scaling: float | None, window: int | None) -> torch.Tensor:
        """Attention of all rows: `query` (heads, rows, dim) -> (rows, heads, dim); keys and values are in the pool."""
        rows = query.transpose(0, 1).contiguous()
        if len(self.groups) == 1:
            return self.backend.run(self.groups[0], self.pool, layer, rows, scaling, window)
        out = torch.empty_like(rows)
        for group in self.groups:
            out[group.rows] = self.backend.run(group, self.pool, layer, rows[group.rows], scaling, window)
        return out


class FlashInfer:
    """FlashInfer's wrappers for one worker. `library` is the module `flashinfer`, or a stand-in in tests."""

    def __init__(
        self,
        library: Any,
        dtype: torch.dtype,
        device: torch.device,
        *,
        num_heads: int,
        num_kv_heads: int,
        head_dim: int,
    ) -> None:
        self._library, self._dtype, self._device = library, dtype, device
        self._heads, self._kv_heads, self._head_dim = num_heads, num_kv_heads, head_dim
        self._workspace = torch.empty(WORKSPACE_BYTES if device.type == "cuda" else 1, dtype=torch.uint8, device=device)
        self._wrappers: dict[tuple[bool, int, float | None], Any] = {}
        self._copied: dict[tuple[bool, int, float | None], torch.cuda.Event] = {}
        """By wrapper: when its last `plan` has read its pinned buffer, which the next `plan` writes again."""

    def lay_out(self, pool: PagePool, num_layers: int, rows: Sequence[PagedRows]) -> PagedStep:
        """Decodes and prefill chunks of one segment of a step; arguments as in `attention.lay_out`."""
        arrays = [(decode, page_arrays(num_layers, rows, decode=decode)) for decode in (True, False)]
        there = [(decode, found) for decode, found in arrays if found is not None]
        groups = [
            RowGroup(
                found,
                decode,
                None if len(there) == 1 else self._upload(found.rows.astype(np.int64)),
                self._upload(found.indices),
            )
            for decode, found in there
        ]
        return PagedStep(self, pool, groups)

    def run(
        self,
        group: RowGroup,
        pool: PagePool,
        layer: int,
        query: torch.Tensor,
        scaling: float | None,
        window: int | None,
    ) -> torch.Tensor:
        """Attention of the group's rows (rows, heads, dim) in one layer."""
        # FlashInfer counts the tokens before the row itself.
        key = (-1 if window is None else window - 1, scaling)
        planned = group.planned.get(key)
        if planned is None:
            planned = group.planned[key] = self._plan(group, *key, group.indices[layer].clone())
        elif planned.reads_indices:
            planned.indices.copy_(group.indices[layer])
        else:
            planned = self._plan(group, *key, group.indices[layer].clone())
        return planned.wrapper.run(query, (pool.keys, pool.values))

    def _plan(self, group: RowGroup, window_left: int, scaling: float | None, indices: torch.Tensor) -> PlannedWrapper:
        name = (group.decode, window_left, scaling)
        wrapper = self._wrappers.get(name)
        if wrapper is None:
            wrapper = self._wrappers[name] = self._new_wrapper(group.decode)
        if (event := self._copied.get(name)) is not None:
            event.synchronize()
        host = group.arrays
        common = {
            "q_data_type": self._dtype,
            "kv_data_type": self._dtype,
            "sm_scale": scaling,
            "window_left": window_left,
        }
        shape = (self._heads, self._kv_heads, self._head_dim, PAGE_TOKENS)
        kv = (torch.from_numpy(host.kv_indptr), indices, torch.from_numpy(host.last_page_len))
        if group.decode:
            wrapper.plan(*kv, *shape, **common)
        else:
            wrapper.plan(torch.from_numpy(host.qo_indptr), *kv, *shape, causal=True, **common)
        if self._device.type == "cuda":
            event = self._copied[name] = torch.cuda.Event()
            event.record(torch.cuda.current_stream(self._device))
        kept = getattr(wrapper, "_paged_kv_indices_buf", None)
        return PlannedWrapper(wrapper, indices, kept is not None and kept.data_ptr() == indices.data_ptr())

    def _new_wrapper(self, decode: bool) -> Any:
        # The backend fa2 runs on all devices from Turing on, and reads the page indices when it runs.
        if not decode:
            return self._library.BatchPrefillWithPagedKVCacheWrapper(self._workspace, "NHD", backend="fa2")
        tensor_cores = self._heads // self._kv_heads not in CUDA_CORE_RATIOS
        return self._library.BatchDecodeWithPagedKVCacheWrapper(
            self._workspace, "NHD", use_tensor_cores=tensor_cores, backend="fa2"
        )

    def _upload(self, array: np.ndarray) -> torch.Tensor:
        return to_device(torch.from_numpy(np.ascontiguousarray(array)), self._device)
