"""What `fused_layers` calls on a CPU in float32, over gathered pages.

A step of few rows is over soon, so each operation of torch costs more time than its numbers do: transformers' own code
makes about 50 of them in a layer, this one 20. Norms are one loop each, and so are rotary embedding and the writing of
keys and values. Larger steps are left to torch, whose operations use all threads.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import torch

from helix_kit.runtime.worker import cpu_attention, torch_kernels
from helix_kit.runtime.worker.attention import AttentionSettings, StepLayout, attend_rows
from helix_kit.runtime.worker.cpu_attention import FLOATS, attend_decodes
from helix_kit.runtime.worker.static_batch import HeadShape

MAX_NUMBERS = 1 << 15
"""Numbers up to which a loop of one thread takes less time than operations of torch; torch itself begins to use
several threads there."""


@numba.njit(nogil=True, fastmath=FLOATS, cache=True)
def _norm(hidden, weight, eps, result):  # type: ignore[no-untyped-def] # pragma: no cover
    """Root mean square norm of each row."""
    width = hidden.shape[1]
    for row in range(len(hidden)):
        values, out = hidden[row], result[row]
        total = np.float32(0)
        for i in range(width):
            total += values[i] * values[i]
        factor = np.float32(1) / np.sqrt(total / np.float32(width) + np.float32(eps))
        for i in range(width):
            out[i] = weight[i] * (values[i] * factor)


@numba.njit(nogil=True, fastmath=FLOATS, cache=True)
def _add_and_norm(hidden, delta, weight, eps, result):  # type: ignore[no-untyped-def] # pragma: no cover
    for row in range(len(hidden)):
        values, added = hidden[row], delta[row]
        for i in range(len(values)):
            values[i] += added[i]
    _norm(hidden, weight, eps, result)


@numba.njit(nogil=True, fastmath=FLOATS, cache=True)
def _turn(values, cos, sin):  # type: ignore[no-untyped-def] # pragma: no cover
    """Rotary embedding of one head, in place; values behind the rotary width stay."""
    half = len(cos) // 2
    for i in range(half):
        first, second = values[i], values[half + i]
        values[i] = first * cos[i] - second * sin[i]
        values[half + i] = second * cos[half + i] + first * sin[half + i]


@numba.njit(nogil=True, fastmath=FLOATS, cache=True)
def _turn_and_write(qkv, query_heads, rotary, norms, eps, slots, pages):  # type: ignore[no-untyped-def] # pragma: no cover
    """Turn queries and keys (rows, heads, dim) in place, and write keys and values to their slots.

    `norms` (2, dim) are the weights of the norms of query and key heads; with none of them it is (0, dim).
    """
    cos, sin = rotary
    keys, values = pages
    kv_heads = keys.shape[1]
    for row in range(len(qkv)):
        for head in range(query_heads + kv_heads):
            own = qkv[row, head]
            if len(norms):
                _norm(qkv[row, head : head + 1], norms[0 if head < query_heads else 1], eps, qkv[row, head : head + 1])
            _turn(own, cos[row], sin[row])
        for head in range(kv_heads):
            keys[slots[row], head] = qkv[row, query_heads + head]
            values[slots[row], head] = qkv[row, query_heads + kv_heads + head]


@dataclass
class GatheredLayer:
    """One layer of a step: `layer` is its place among those of the step's layout."""

    batch: GatheredBatch
    layer: int
    fresh: tuple[torch.Tensor, torch.Tensor]
    """The keys and values (1, kv heads, rows, dim) that the step has written, where it has prefill chunks."""


class GatheredBatch:
    """A step's rows as `run_fused_layers` takes them. It passes itself, and what `cache` gives, on to the kernels."""

    def __init__(self, layout: StepLayout) -> None:
        self.layout = layout
        self.kernels: Any = sys.modules[__name__]
        # Each of these calls takes half as long as a norm does.
        heads = layout.pool.keys.shape[2:]
        self.pages: tuple[np.ndarray[Any, Any], ...] = tuple(
            store.view(-1, *heads).numpy() for store in (layout.pool.keys, layout.pool.values)
        )
        self.slots: np.ndarray[Any, Any] = np.ascontiguousarray(layout.slots.numpy())
        self.no_norms: np.ndarray[Any, Any] = np.empty((0, heads[-1]), np.float32)
        self._nothing = torch.empty(1, 0, 0, 0)

    def cache(self, index: int) -> GatheredLayer:
        """The layer of this index in the model."""
        return GatheredLayer(self, index - self.layout.first_layer, (self._nothing, self._nothing))


def rms_norm(hidden: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Root mean square norm of each row of `hidden` (rows, width)."""
    if hidden.numel() > MAX_NUMBERS:
        return torch_kernels.rms_norm(hidden, weight, eps)
    result = torch.empty_like(hidden)
    _norm(hidden.numpy(), weight.numpy(), eps, result.numpy())
    return result


def add_rms_norm(hidden: torch.Tensor, delta: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Add `delta` to `hidden` in place; returns the norm of the sum."""
    if hidden.numel() > MAX_NUMBERS:
        return torch_kernels.add_rms_norm(hidden, delta, weight, eps)
    result = torch.empty_like(hidden)
    _add_and_norm(hidden.numpy(), delta.numpy(), weight.numpy(), eps, result.numpy())
    return result


def silu_and_mul(gate_up: torch.Tensor) -> torch.Tensor:
    """SiLU of the first half of each row, times the second half."""
    return torch_kernels.silu_and_mul(gate_up)


def rotary_and_write(
    qkv: torch.Tensor,
    heads: HeadShape,
    rotary: tuple[torch.Tensor, torch.Tensor],
    norms: tuple[torch.Tensor, torch.Tensor] | None,
    eps: float,
    cache: GatheredLayer,
) -> torch.Tensor:
    """Turn queries and keys by their positions, write keys and values to their pages; returns the queries.

    As `torch_kernels.rotary_and_write`. `qkv` is written over.
    """
    parts = qkv.view(len(qkv), -1, heads.head_dim)
    batch, num_heads = cache.batch, heads.num_heads
    weights = batch.no_norms if norms is None else torch.stack(norms).numpy()
    turned = (rotary[0].numpy(), rotary[1].numpy())
    _turn_and_write(parts.numpy(), num_heads, turned, weights, eps, batch.slots[cache.layer], batch.pages)
    if batch.layout.chunks:
        key, value = parts[:, num_heads:].transpose(0, 1)[None].chunk(2, dim=1)
        cache.fresh = (key, value)
    return parts[:, :num_heads]


def attend(
    query: torch.Tensor, cache: GatheredLayer, batch: GatheredBatch, scaling: float | None, window: int | None
) -> torch.Tensor:
    """Attention of all rows of `query` (rows, heads, head dim) over the pages of their requests, in the same shape."""
    layout = batch.layout
    if not layout.chunks and len(layout.decodes) == 1 and cpu_attention.suits(layout.decodes[0], query.shape[1]):
        return attend_decodes(layout.pool, layout.decodes[0], cache.layer, query, scaling, window)
    in_order = query.transpose(0, 1)[None]
    return attend_rows(layout, cache.layer, in_order, cache.fresh, AttentionSettings(scaling, window))


def load() -> None:
    """Compile the loops, or read them from numba's cache, so that the first step need not."""
    cpu_attention.load()
    pair = torch.zeros(2, 1, 2)
    rms_norm(pair[0], pair[0, 0], 1.0)
    add_rms_norm(pair[0], pair[1], pair[0, 0], 1.0)
    qkv, rotary, norms, pages = (np.zeros(shape, np.float32) for shape in ((1, 3, 2), (1, 2), (0, 2), (1, 1, 2)))
    _turn_and_write(qkv, 1, (rotary, rotary), norms, 1.0, np.zeros(1, np.int64), (pages, pages))
