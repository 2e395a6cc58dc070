"""The step's kernels in plain torch: what `helix_kit.runtime.worker.triton_kernels` computes, on any device.

They are the reference that the Triton kernels are tested against, and run a step's static buffers where there is no
Triton. The numbers are rounded where Hugging Face's layers round them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from helix_kit.runtime.worker.kv_cache import PAGE_TOKENS
from helix_kit.runtime.worker.static_batch import HeadShape, LayerCache, StaticBatch


def rms_norm(hidden: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Root mean square norm of each row of `hidden` (..., width)."""
    exact = hidden.float()
    return weight * (exact * torch.rsqrt(exact.square().mean(-1, keepdim=True) + eps)).to(hidden.dtype)


def add_rms_norm(hidden: torch.Tensor, delta: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Add `delta` to `hidden` in place; returns the norm of the sum."""
    return rms_norm(hidden.add_(delta), weight, eps)


def silu_and_mul(gate_up: torch.Tensor) -> torch.Tensor:
    """SiLU of the first half of each row, times the second half."""
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate) * up


def rotary_and_write(
    qkv: torch.Tensor,
    heads: HeadShape,
    rotary: tuple[torch.Tensor, torch.Tensor],
    norms: tuple[torch.Tensor, torch.Tensor] | None,
    eps: float,
    cache: LayerCache,
) -> torch.Tensor:
    """Turn queries and keys by their positions, write keys and values to their pages; returns the queries.

    Parameters
    ----------
    qkv
        (rows, (heads + 2 kv heads) x head dim): queries, keys and values side by side.
    heads
        The model's heads.
    rotary
        Cosines and sines (rows, rotary dim), float32. Values of a head behind the rotary dim stay as they are.
    norms
        Weights of the norms of each query and key head, and `eps` for them; None: there are none.
    eps
        Added to the mean squares.
    cache
        Where the rows' keys and values go.

    Returns
    -------
    The queries (rows, heads, head dim).
    """
    rows, dim = len(qkv), heads.head_dim
    parts = qkv.view(rows, -1, dim).split([heads.num_heads, heads.num_kv_heads, heads.num_kv_heads], dim=1)
    query, key, value = parts
    if norms is not None:
        query, key = rms_norm(query, norms[0], eps), rms_norm(key, norms[1], eps)
    query, key = (_turned(part, *rotary) for part in (query, key))
    write(key, value, cache)
    return query


def _turned(heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    width = cos.shape[-1]
    exact = heads[..., :width].float()
    first, second = exact.chunk(2, dim=-1)
    turned = exact * cos[:, None] + torch.cat([-second, first], dim=-1) * sin[:, None]
    return torch.cat([turned.to(heads.dtype), heads[..., width:]], dim=-1)


def write(key: torch.Tensor, value: torch.Tensor, cache: LayerCache) -> None:
    """Write keys and values (rows, kv heads, head dim) to their pages."""
    positions = cache.positions.long()
    page = cache.table[cache.table_rows.long(), positions // PAGE_TOKENS].long()
    slots = page * PAGE_TOKENS + positions % PAGE_TOKENS
    cache.keys.view(-1, *key.shape[1:]).index_copy_(0, slots, key)
    cache.values.view(-1, *value.shape[1:]).index_copy_(0, slots, value)


def attend(
    query: torch.Tensor, cache: LayerCache, batch: StaticBatch, scaling: float | None, window: int | None
) -> torch.Tensor:
    """Causal attention of all rows of `query` (rows, heads, head dim) over the pages of their requests.

    `window` is the number of last tokens that a row sees, itself included; None: all. `scaling` None: 1 / sqrt(dim).
    """
    out = torch.zeros_like(query)
    starts, sizes = batch.block_starts.tolist(), batch.block_sizes.tolist()
    blocks = [(row, 1) for row in range(len(query))] if batch.is_decode else list(zip(starts, sizes))
    for start, size in blocks:
        if size:
            rows = slice(start, start + size)
            out[rows] = _attend_block(query[rows], cache, rows, scaling, window)
    return out


def _attend_block(
    query: torch.Tensor, cache: LayerCache, rows: slice, scaling: float | None, window: int | None
) -> torch.Tensor:
    positions = cache.positions[rows].long()
    seen = int(positions[-1]) + 1
    pages = cache.table[cache.table_rows[rows.start].long(), : -(-seen // PAGE_TOKENS)].long()
    key, value = (store[pages].flatten(0, 1)[:seen].transpose(0, 1) for store in (cache.keys, cache.values))
    token = torch.arange(seen, device=query.device)
    is_seen = token <= positions[:, None]
    if window is not None:
        is_seen &= token > positions[:, None] - window
    out = F.scaled_dot_product_attention(
        query.transpose(0, 1)[None], key[None], value[None], attn_mask=is_seen, scale=scaling, enable_gqa=True
    )
    return out[0].transpose(0, 1)
