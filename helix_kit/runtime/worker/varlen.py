"""Attention by torch's own `torch.nn.attention.varlen.varlen_attn`, which reads keys and values from pages.

It needs no further package: its kernels are the FlashAttention that torch has, or another one that is activated in
torch. Sequences of a step lie side by side: sequence i has the rows [cu_seq_q[i], cu_seq_q[i + 1]) and the first
`seqused_k[i]` tokens of the pages that row i of the block table names. Masks are aligned to the end, so the last row of
a sequence sees its last token. All of these are tensors that a CUDA graph reads when it is replayed; the longest
sequences, which are numbers, are those of the buffers.

torch 2.13 has the block tables. Whether they may name pages of 16 tokens depends on the FlashAttention behind them:
FlashAttention 2, which comes with torch 2.13, wants pages of 256 tokens ("Paged KV cache block size must be divisible
by 256"), FlashAttention 3 (an own package, for compute capability 9) takes any. So a small step is tried first
(`why_wrong`): it says what torch refuses in torch's words, and a wrong result is no result.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch

from helix_kit.runtime.worker import torch_kernels
from helix_kit.runtime.worker.kv_cache import PAGE_TOKENS, BlockTable, PagedRows, PagePool
from helix_kit.runtime.worker.static_batch import DeviceTables, LayerCache, StaticBatch, StepBuffers
from helix_kit.runtime.worker.step_kernels import PagedAttention, StepKernels

VarlenOp = Callable[..., Any]
"""A function with the signature of `torch.nn.attention.varlen.varlen_attn`."""
NEEDED = ("scale", "window_size", "enable_gqa", "seqused_k", "block_table", "num_splits")
MIN_CAPABILITY = (8, 0)
MAX_HEAD_DIM, HEAD_DIM_MULTIPLE = 256, 8
TRIED_ERROR = 0.05
"""Largest error of the small step; values are about 1, and half precision is off by less than 0.01."""
IMPLEMENTATIONS = {9: "FA3", 10: "FA4"}
"""Major compute capability -> the implementation that is activated in torch if its package is there."""


class VarlenAttention(PagedAttention):
    """`op` over the pages.

    Parameters
    ----------
    op
        torch's `varlen_attn`, or a stand-in in tests.
    deterministic
        Contexts are not split, so a sequence's bits do not depend on others.
    gives_lengths
        Whether `op` wants to know where the keys of each sequence would begin without pages, as torch's wrapper of
        FlashAttention 2 does ("must be both set or both not set"). FlashAttention 3 refuses to hear it.
    """

    name = "varlen"
    takes_whole_requests = True

    def __init__(self, op: VarlenOp, *, deterministic: bool = False, gives_lengths: bool = False) -> None:
        self._op, self._gives_lengths = op, gives_lengths
        self._splits = 1 if deterministic else None

    def attend(
        self, query: torch.Tensor, cache: LayerCache, batch: StaticBatch, scaling: float | None, window: int | None
    ) -> torch.Tensor:
        """As `torch_kernels.attend`."""
        sequences = batch.sequences
        table = cache.table.index_select(0, sequences.table_rows)
        # Numbers of tokens before and behind a row's own that it sees; -1: all. One row a sequence, its last one, sees
        # all tokens without a mask, and FlashAttention then takes the query heads of a key head together.
        sees = (-1 if window is None else window - 1, -1 if window is None and batch.is_decode else 0)
        attended: torch.Tensor = self._op(
            query.contiguous(),
            cache.keys,
            cache.values,
            sequences.starts,
            sequences.key_starts if self._gives_lengths else None,
            sequences.longest,
            table.shape[1] * PAGE_TOKENS,
            scale=scaling,
            window_size=sees,
            enable_gqa=query.shape[1] != cache.keys.shape[2],
            seqused_k=sequences.seen,
            block_table=table,
            num_splits=self._splits,
        )
        return attended


def torch_op() -> VarlenOp | None:
    """torch's `varlen_attn`; None if this torch has none, or one without block tables."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return varlen_attn if set(NEEDED) <= set(inspect.signature(varlen_attn).parameters) else None


def why_unavailable(dtype: torch.dtype, device: torch.device, head_dim: int) -> str | None:
    """The reason why `varlen_attn` cannot be used here; None if it can."""
    if device.type != "cuda":
        return f"it needs a CUDA device, and this worker computes on {device.type}"
    if dtype not in (torch.float16, torch.bfloat16):
        return f"its kernels compute in float16 and bfloat16, not {str(dtype).removeprefix('torch.')}"
    if head_dim > MAX_HEAD_DIM or head_dim % HEAD_DIM_MULTIPLE:
        limits = f"a multiple of {HEAD_DIM_MULTIPLE} and at most {MAX_HEAD_DIM}"
        return f"its kernels have heads of {limits} values, the model's have {head_dim}"
    capability = torch.cuda.get_device_capability(device)
    if torch.version.hip is None and capability < MIN_CAPABILITY:
        need, has = (".".join(map(str, pair)) for pair in (MIN_CAPABILITY, capability))
        return f"it needs compute capability {need}, and {torch.cuda.get_device_name(device)} has {has}"
    op = torch_op()
    if op is None:
        return f"torch {torch.__version__} has no varlen_attn with block tables, which torch 2.13 has"
    return _tried(op, dtype, device, head_dim, capability[0])


@functools.cache
def _tried(op: VarlenOp, dtype: torch.dtype, device: torch.device, head_dim: int, major: int) -> str | None:
    """What is wrong with `op` on this device, with the best FlashAttention that can be activated in torch."""
    active = _activate(IMPLEMENTATIONS.get(major))
    reason = why_wrong(op, dtype, device, head_dim)
    if reason is not None and active is not None:
        torch.nn.attention.restore_flash_attention_impl()
        return f"with {active} {reason}"
    if reason is not None and major in IMPLEMENTATIONS:
        return f"{reason} ({IMPLEMENTATIONS[major]}, an own package, is not installed)"
    return reason


def _activate(implementation: str | None) -> str | None:
    """Activate an implementation in torch; returns its name, or None if it is not there."""
    if implementation is None:
        return None
    try:
        torch.nn.attention.activate_flash_attention_impl(implementation)  # type: ignore[arg-type]
    except (ImportError, RuntimeError, ValueError, AttributeError):
        return None
    return implementation


def make_attention(op: VarlenOp, *, deterministic: bool = False) -> VarlenAttention:
    """Attention by torch's `op`, with the arguments that the FlashAttention that is active in torch wants."""
    is_own = torch.nn.attention.current_flash_attention_impl() is None
    return VarlenAttention(op, deterministic=deterministic, gives_lengths=is_own)


@torch.inference_mode()
def why_wrong(op: VarlenOp, dtype: torch.dtype, device: torch.device, head_dim: int) -> str | None:
    """What is wrong with `op` in two small steps over pages of 16 tokens; None if its results are right.

    One step decodes, the other one has prefill chunks. Both are tried with a window and without.
    """
    attention = make_attention(op)
    for steps in ([(37, 1), (5, 1), (16, 1)], [(37, 3), (0, 18), (21, 1)]):
        batch = _small_batch(attention, steps, dtype, device, head_dim)
        real = sum(tokens for _, tokens in steps)
        query = torch.randn(len(batch.positions), 4, head_dim, dtype=dtype, device=device)
        for window in (None, 21):
            try:
                found = attention.attend(query, batch.cache(0), batch, None, window)[:real]
            except Exception as error:  # whatever torch raises for a card, a page size or a package
                return f"torch says: {str(error).strip().splitlines()[0][:200]}"
            expected = torch_kernels.attend(query, batch.cache(0), batch, None, window)[:real]
            difference = float((found.float() - expected.float()).abs().max())
            if not difference <= TRIED_ERROR:
                return f"torch's results over pages of {PAGE_TOKENS} tokens are wrong by {difference:.2g}"
    return None


def _small_batch(
    attention: PagedAttention, steps: list[tuple[int, int]], dtype: torch.dtype, device: torch.device, head_dim: int
) -> StaticBatch:
    """A step of requests (tokens so far, rows), padded by two rows, over random keys and values of two heads."""
    pool = PagePool(24, 2, head_dim, dtype, device)
    for store in (pool.keys, pool.values):
        store.copy_(torch.randn(store.shape).to(dtype))
    tables = []
    for seen, _ in steps:
        tables.append(BlockTable(1))
        tables[-1].grow(pool, max(1, seen))
    requests = []
    for table, (seen, rows) in zip(tables, steps):
        table.grow(pool, seen + rows - table.num_tokens)
        requests.append(PagedRows(table, 0, seen, rows))
    on_device = DeviceTables(pool, (0, 1), len(steps), 4)
    rows = sum(tokens for _, tokens in steps) + 2
    buffers = StepBuffers(on_device, pool, 0, rows, 8, StepKernels(torch_kernels, attention), block_rows=16)
    decode = rows - 2 == len(steps)
    buffers.fill(rows, on_device.rows_of([(table, 0) for table in tables]), requests, decode=decode)
    return buffers.batch(rows, decode=decode)
