"""Attention of a ragged batch over paged keys and values, called from unchanged Hugging Face layers.

One step holds rows (tokens) of several requests side by side. Rows of requests that decode are attended in one
batch over their gathered pages; each prefill chunk is attended by itself, causally, over what its request has
so far. `register` makes transformers call `attend`, which finds the step's bookkeeping in the keyword `step`. With a
backend of `helix_kit.runtime.worker.flashinfer`, `attend` writes keys and values and leaves the rest to FlashInfer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from helix_kit.runtime.worker.flashinfer import FlashInfer, PagedStep
from helix_kit.runtime.worker.kv_cache import PAGE_TOKENS, BlockTable, PagePool
from helix_kit.runtime.worker.transfer import to_device

IMPLEMENTATION = "helix_kit_paged"
GATHER_BYTES = 256 << 20
"""Of keys and values, padding included, that decodes gather at once on a GPU; one long request may take more."""


OneRow = tuple[int, int, np.ndarray]
"""A decode: its row in the batch, its position, its pages (layers, pages)."""


@dataclass
class Chunk:
    """Rows [row, row + tokens) of the batch: `tokens` positions of one request from `position` on."""

    row: int
    tokens: int
    position: int
    pages: torch.Tensor
    """(layers, pages)."""


@dataclass
class Decodes:
    """Requests of one row each that are attended in one batch."""

    rows: torch.Tensor
    pages: torch.Tensor
    """(layers, requests, pages), padded with the padding page."""
    positions: torch.Tensor
    """(requests, 1): position of each row, which is the last one it may see."""
    masks: dict[int | None, torch.Tensor] = field(default_factory=dict)


@dataclass
class StepLayout:
    """Where the rows of one segment of a step find their keys and values; layers count from `first_layer`."""

    pool: PagePool
    first_layer: int
    slots: torch.Tensor
    """(layers, rows): where each row's key and value are written."""
    decodes: list[Decodes]
    """One in batch order, or several by length."""
    chunks: list[Chunk]
    paged: PagedStep | None = None
    """FlashInfer's bookkeeping, which takes the place of all the above but the slots."""


def lay_out(
    pool: PagePool,
    first_layer: int,
    num_layers: int,
    rows: list[tuple[BlockTable, int, int, int]],
    backend: FlashInfer | None = None,
) -> StepLayout:
    """Bookkeeping of one segment of layers.

    `rows` lists per request, in batch order: its block table, the index of the segment's first layer in that
    table, the position of its first token in this step, and how many tokens it has there.
    """
    device = pool.keys.device
    if backend is not None:
        spans = [(table.slots(at, at + tokens), offset) for table, offset, at, tokens in rows]
        slots_of = np.concatenate([found[offset : offset + num_layers] for found, offset in spans], axis=1)
        on_device = to_device(torch.from_numpy(slots_of), device)
        return StepLayout(pool, first_layer, on_device, [], [], paged=backend.lay_out(pool, num_layers, rows))
    slots, decode, chunks, row = [], [], [], 0
    for table, offset, position, tokens in rows:
        layers = slice(offset, offset + num_layers)
        slots.append(table.slots(position, position + tokens)[layers])
        pages = table.pages[layers, : -(-(position + tokens) // PAGE_TOKENS)]
        if tokens == 1:
            decode.append((row, position, pages))
        else:
            chunks.append(Chunk(row, tokens, position, to_device(torch.from_numpy(pages), device)))
        row += tokens
    groups = _by_length(decode, _pages_at_once(pool)) if decode else []
    return StepLayout(
        pool=pool,
        first_layer=first_layer,
        slots=to_device(torch.from_numpy(np.concatenate(slots, axis=1)), device),
        decodes=[_decodes(pool, num_layers, group) for group in groups],
        chunks=chunks,
    )


def _pages_at_once(pool: PagePool) -> int | None:
    """Most pages of a layer that decodes may gather together; None: any number, as in a CPU's memory."""
    if pool.keys.device.type == "cpu":
        return None
    return GATHER_BYTES // (2 * pool.keys[0].nbytes)


def _by_length(decode: list[OneRow], at_once: int | None) -> list[list[OneRow]]:
    """Split the decodes where a batch padded to its longest would gather more than `at_once` pages.

    The longest come first, so that a group's first member says how far it is padded. Batch order where one group does.
    """
    longest = max(pages.shape[1] for _, _, pages in decode)
    if at_once is None or longest * len(decode) <= at_once:
        return [decode]
    groups: list[list[OneRow]] = []
    for one in sorted(decode, key=lambda d: -d[2].shape[1]):
        if groups and (len(groups[-1]) + 1) * groups[-1][0][2].shape[1] <= at_once:
            groups[-1].append(one)
        else:
            groups.append([one])
    return groups


def _decodes(pool: PagePool, num_layers: int, group: list[OneRow]) -> Decodes:
    device, longest = pool.keys.device, max(pages.shape[1] for _, _, pages in group)
    table = np.full((num_layers, len(group), longest), pool.padding_page, dtype=np.int64)
    for index, (_, _, pages) in enumerate(group):
        table[:, index, : pages.shape[1]] = pages
    return Decodes(
        rows=to_device(torch.tensor([row for row, _, _ in group], dtype=torch.long), device),
        pages=to_device(torch.from_numpy(table), device),
        positions=to_device(torch.tensor([[position] for _, position, _ in group], dtype=torch.long), device),
    )


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    step: StepLayout,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **unused: Any,
) -> tuple[torch.Tensor, None]:
    """Write this step's keys and values, then attend; the signature that transformers expects.

    `query` is (1, heads, rows, head dim), `key` and `value` (1, kv heads, rows, head dim); the result is
    (1, rows, heads, head dim).
    """
    layer = int(module.layer_idx) - step.first_layer  # type: ignore[arg-type]
    pool, (_, heads, rows, dim) = step.pool, query.shape
    kv_heads = key.shape[1]
    pool.keys.view(-1, kv_heads, dim).index_copy_(0, step.slots[layer], key[0].transpose(0, 1))
    pool.values.view(-1, kv_heads, dim).index_copy_(0, step.slots[layer], value[0].transpose(0, 1))
    if step.paged is not None:
        return step.paged.attend(layer, query[0], scaling, sliding_window).unsqueeze(0), None
    if not step.chunks and len(step.decodes) == 1:  # the usual step: nothing but decodes, in batch order
        return _decode(pool, step.decodes[0], layer, query[0], scaling, sliding_window).unsqueeze(0), None
    out = torch.empty((rows, heads, dim), dtype=query.dtype, device=query.device)
    for group in step.decodes:
        out[group.rows] = _decode(pool, group, layer, query[0][:, group.rows], scaling, sliding_window)
    for chunk in step.chunks:
        span = slice(chunk.row, chunk.row + chunk.tokens)
        fresh = (key[:, :, span], value[:, :, span])
        out[span] = _prefill(step, layer, chunk, query[:, :, span], fresh, scaling, sliding_window)
    return out.unsqueeze(0), None


def _decode(
    pool: PagePool, group: Decodes, layer: int, query: torch.Tensor, scaling: float | None, window: int | None
) -> torch.Tensor:
    """Attention of one row per request: `query` (heads, requests, dim) -> (requests, heads, dim)."""
    heads, requests, dim = query.shape
    table = group.pages[layer]
    keys, values = _gather(pool, table.flatten(), requests)
    if window not in group.masks:
        visible = torch.arange(table.shape[1] * PAGE_TOKENS, device=query.device)
        mask = visible <= group.positions
        if window is not None:
            mask &= visible > group.positions - window
        group.masks[window] = mask[:, None, None]
    kv_heads = keys.shape[1]
    # The heads that share a key head become the query rows of that head: nothing is copied per query head.
    grouped = query.transpose(0, 1).reshape(requests, kv_heads, heads // kv_heads, dim)
    out = F.scaled_dot_product_attention(grouped, keys, values, attn_mask=group.masks[window], scale=scaling)
    return out.reshape(requests, heads, dim)


def _prefill(
    step: StepLayout,
    layer: int,
    chunk: Chunk,
    query: torch.Tensor,
    fresh: tuple[torch.Tensor, torch.Tensor],
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    """Causal attention of one chunk over its request so far: (1, heads, tokens, dim) -> (tokens, heads, dim)."""
    seen = chunk.position + chunk.tokens
    if chunk.position == 0 and (window is None or window >= seen):
        keys, values = fresh
        out = F.scaled_dot_product_attention(query, keys, values, is_causal=True, scale=scaling, enable_gqa=True)
        return out[0].transpose(0, 1)
    keys, values = _gather(step.pool, chunk.pages[layer], 1)
    own = torch.arange(chunk.position, seen, device=query.device)[:, None]
    other = torch.arange(seen, device=query.device)[None, :]
    mask = other <= own
    if window is not None:
        mask &= other > own - window
    out = F.scaled_dot_product_attention(
        query, keys[:, :, :seen], values[:, :, :seen], attn_mask=mask, scale=scaling, enable_gqa=True
    )
    return out[0].transpose(0, 1)


def _gather(pool: PagePool, pages: torch.Tensor, requests: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pages of several requests, in order, as (requests, kv heads, tokens, dim)."""
    _, _, kv_heads, dim = pool.keys.shape

    def of(store: torch.Tensor) -> torch.Tensor:
        return store.index_select(0, pages).view(requests, -1, kv_heads, dim).transpose(1, 2)

    return of(pool.keys), of(pool.values)


def register() -> str:
    """Make `attend` known to transformers and return the name to ask for."""
    from transformers import AttentionInterface

    AttentionInterface.register(IMPLEMENTATION, attend)
    return IMPLEMENTATION
