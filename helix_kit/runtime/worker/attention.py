"""Attention of a ragged batch over paged keys and values, called from unchanged Hugging Face layers.

One step holds rows (tokens) of several requests side by side. The rows of requests that decode are attended in one
batch, over pages gathered for all of them. Each prefill chunk is attended by itself: causally, over all tokens of its
request so far. `register` makes transformers call `attend`, which gets the step's bookkeeping as its keyword `step`.
In a step over static buffers `attend` calls the step's kernels, which read the pages without gathering them.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from helix_kit.runtime.worker.changed_scores import ChangedScores
from helix_kit.runtime.worker.kv_cache import PAGE_TOKENS, PagedRows, PagePool
from helix_kit.runtime.worker.static_batch import StaticBatch
from helix_kit.runtime.worker.transfer import to_device

IMPLEMENTATION = "helix_kit_paged"
GATHER_BYTES = 256 << 20
"""Bytes of keys and values, with padding, that decodes gather at once on a GPU. One long request may take more."""


class DecodeRow(NamedTuple):
    """The one row of a request that decodes."""

    row: int
    """Its place among the rows of the step."""
    position: int
    pages: np.ndarray
    """(layers, pages)."""


@dataclass
class PrefillChunk:
    """Rows [row, row + tokens) of the step: `tokens` tokens of one request, from `position` on."""

    row: int
    tokens: int
    position: int
    pages: torch.Tensor
    """(layers, pages)."""


@dataclass
class DecodeBatch:
    """Requests of one row each that are attended together."""

    rows: torch.Tensor
    pages: torch.Tensor
    """(layers, requests, pages), padded with the padding page."""
    positions: torch.Tensor
    """(requests, 1): position of each row. It sees the tokens up to this position."""
    masks: dict[int | None, torch.Tensor] = field(default_factory=dict)
    """By sliding window; made in the first layer that needs it."""


@dataclass
class StepLayout:
    """Where the keys and values of a step's rows lie, for one segment of layers, which starts at `first_layer`."""

    pool: PagePool
    first_layer: int
    slots: torch.Tensor
    """(layers, rows): the slot that each row's key and value are written to."""
    decodes: list[DecodeBatch]
    """One batch in the order of the rows, or several batches by length."""
    chunks: list[PrefillChunk]


def lay_out(pool: PagePool, first_layer: int, num_layers: int, rows: list[PagedRows]) -> StepLayout:
    """Bookkeeping of one segment of layers; `rows` are those of each request, in the order of the step's rows."""
    device = pool.keys.device
    slots, decode, chunks, row = [], [], [], 0
    for table, offset, position, tokens, _ in rows:
        layers = slice(offset, offset + num_layers)
        slots.append(table.slots(position, position + tokens)[layers])
        pages = table.pages[layers, : -(-(position + tokens) // PAGE_TOKENS)]
        if tokens == 1:
            decode.append(DecodeRow(row, position, pages))
        else:
            chunks.append(PrefillChunk(row, tokens, position, to_device(torch.from_numpy(pages), device)))
        row += tokens
    groups = _by_length(decode, _pages_at_once(pool)) if decode else []
    return StepLayout(
        pool=pool,
        first_layer=first_layer,
        slots=to_device(torch.from_numpy(np.concatenate(slots, axis=1)), device),
        decodes=[_decode_batch(pool, num_layers, group) for group in groups],
        chunks=chunks,
    )


def _pages_at_once(pool: PagePool) -> int | None:
    """Pages of a layer that decodes may gather together; None on a CPU, where the number is not limited."""
    if pool.keys.device.type == "cpu":
        return None
    return GATHER_BYTES // (2 * pool.keys[0].nbytes)


def _by_length(decode: list[DecodeRow], at_once: int | None) -> list[list[DecodeRow]]:
    """Split the decodes into groups, each of which gathers at most `at_once` pages when padded to its longest request.

    If one group is enough, it keeps the order of the rows. Else the longest come first, so that the first decode of a
    group says how far the group is padded.
    """
    longest = max(one.pages.shape[1] for one in decode)
    if at_once is None or longest * len(decode) <= at_once:
        return [decode]
    groups: list[list[DecodeRow]] = []
    for one in sorted(decode, key=lambda d: -d.pages.shape[1]):
        if groups and (len(groups[-1]) + 1) * groups[-1][0].pages.shape[1] <= at_once:
            groups[-1].append(one)
        else:
            groups.append([one])
    return groups


def _decode_batch(pool: PagePool, num_layers: int, group: list[DecodeRow]) -> DecodeBatch:
    device, longest = pool.keys.device, max(one.pages.shape[1] for one in group)
    table = np.full((num_layers, len(group), longest), pool.padding_page, dtype=np.int64)
    for index, one in enumerate(group):
        table[:, index, : one.pages.shape[1]] = one.pages
    return DecodeBatch(
        rows=to_device(torch.tensor([one.row for one in group], dtype=torch.long), device),
        pages=to_device(torch.from_numpy(table), device),
        positions=to_device(torch.tensor([[one.position] for one in group], dtype=torch.long), device),
    )


@dataclass
class AttentionSettings:
    """What a layer's own code asks of the attention. As the `step` of a run without data it is filled in."""

    scaling: float | None = None
    """Factor of the scores; None: 1 / sqrt(head dim)."""
    window: int | None = None
    """Number of last tokens that a row sees, itself included; None: all of them."""
    changed: ChangedScores | None = None
    """What else the layer does to its scores; None: nothing."""


class _SettingsFilledError(Exception):
    """Ends a run without data: what a layer does after its attention (experts read their data) is not of interest."""


def settings_of(
    layer: torch.nn.Module, hidden_size: int, rotary: tuple[torch.Tensor, torch.Tensor]
) -> AttentionSettings:
    """What `layer`, a decoder layer on the meta device, asks of the attention.

    `rotary` are cosines and sines of one row, (1, 1, values), in the layer's dtype.
    """
    settings = AttentionSettings()
    with torch.device("meta"), contextlib.suppress(_SettingsFilledError):
        row = torch.empty(1, 1, hidden_size, dtype=rotary[0].dtype)
        tables = tuple(torch.empty_like(table, device="meta") for table in rotary)
        layer(row, position_ids=None, position_embeddings=tables, attention_mask=None, step=settings)
    return settings


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    step: StepLayout | StaticBatch | AttentionSettings,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **unused: Any,
) -> tuple[torch.Tensor, None]:
    """Write this step's keys and values to their pages, then attend. transformers expects this signature.

    Parameters
    ----------
    module
        The attention layer; its `layer_idx` is the layer's index in the model.
    query, key, value
        Of shape (1, heads, rows, head dim), and (1, kv heads, rows, head dim) for key and value.
    attention_mask
        Not used: the masks follow from `step`.
    step
        Bookkeeping of the step, from `lay_out`, or a static batch, or settings to fill in.
    scaling
        Factor of the scores; None: 1 / sqrt(head dim).
    sliding_window
        Number of last tokens that a row sees, itself included; None: as many as the attribute of this name of `module`
        says (Qwen2-MoE passes its window in the mask alone), or all of them.
    softcap
        Scores s become softcap x tanh(s / softcap); None: they stay as they are.
    s_aux
        Sinks (heads,): a score of each head that takes part in the softmax and has no value; None: there are none.

    Returns
    -------
    The attention of all rows, of shape (1, rows, heads, head dim), and None for the weights.
    """
    window = getattr(module, "sliding_window", None) if sliding_window is None else sliding_window
    changed = None if softcap is None and s_aux is None else ChangedScores(softcap, s_aux)
    if isinstance(step, AttentionSettings):
        step.scaling, step.window, step.changed = scaling, window, changed
        raise _SettingsFilledError
    if isinstance(step, StaticBatch):
        cache = step.cache(int(module.layer_idx))  # type: ignore[arg-type]
        step.kernels.write(key[0].transpose(0, 1), value[0].transpose(0, 1), cache)
        rows_first = query[0].transpose(0, 1).contiguous()
        assert changed is None, "no kernels for static batches change scores: choose_attention refuses them"
        return step.kernels.attend(rows_first, cache, step, scaling, window).unsqueeze(0), None
    layer = int(module.layer_idx) - step.first_layer  # type: ignore[arg-type]
    pool, (_, heads, rows, dim) = step.pool, query.shape
    kv_heads = key.shape[1]
    pool.keys.view(-1, kv_heads, dim).index_copy_(0, step.slots[layer], key[0].transpose(0, 1))
    pool.values.view(-1, kv_heads, dim).index_copy_(0, step.slots[layer], value[0].transpose(0, 1))
    asked = AttentionSettings(scaling, window, changed)
    if not step.chunks and len(step.decodes) == 1:  # the usual step: only decodes, in the order of the rows
        return _decode(pool, step.decodes[0], layer, query[0], asked).unsqueeze(0), None
    out = torch.empty((rows, heads, dim), dtype=query.dtype, device=query.device)
    for group in step.decodes:
        out[group.rows] = _decode(pool, group, layer, query[0][:, group.rows], asked)
    for chunk in step.chunks:
        span = slice(chunk.row, chunk.row + chunk.tokens)
        fresh = (key[:, :, span], value[:, :, span])
        out[span] = _prefill(step, layer, chunk, query[:, :, span], fresh, asked)
    return out.unsqueeze(0), None


def _decode(
    pool: PagePool, group: DecodeBatch, layer: int, query: torch.Tensor, asked: AttentionSettings
) -> torch.Tensor:
    """Attention of one row per request: `query` (heads, requests, dim) -> (requests, heads, dim)."""
    heads, requests, dim = query.shape
    table, window = group.pages[layer], asked.window
    keys, values = _gather(pool, table.flatten(), requests)
    if window not in group.masks:
        visible = torch.arange(table.shape[1] * PAGE_TOKENS, device=query.device)
        mask = visible <= group.positions
        if window is not None:
            mask &= visible > group.positions - window
        group.masks[window] = mask[:, None, None]
    kv_heads = keys.shape[1]
    # Query heads that share a key head become rows of that head: keys and values are not copied for each of them.
    grouped = query.transpose(0, 1).reshape(requests, kv_heads, heads // kv_heads, dim)
    if asked.changed is not None:
        out = asked.changed.attend(grouped, keys, values, group.masks[window], asked.scaling)
    else:
        out = F.scaled_dot_product_attention(grouped, keys, values, attn_mask=group.masks[window], scale=asked.scaling)
    return out.reshape(requests, heads, dim)


def _prefill(
    step: StepLayout,
    layer: int,
    chunk: PrefillChunk,
    query: torch.Tensor,
    fresh: tuple[torch.Tensor, torch.Tensor],
    asked: AttentionSettings,
) -> torch.Tensor:
    """Causal attention of one chunk over its request so far: (1, heads, tokens, dim) -> (tokens, heads, dim)."""
    seen, window = chunk.position + chunk.tokens, asked.window
    if asked.changed is None and chunk.position == 0 and (window is None or window >= seen):
        keys, values = fresh
        out = F.scaled_dot_product_attention(query, keys, values, is_causal=True, scale=asked.scaling, enable_gqa=True)
        return out[0].transpose(0, 1)
    keys, values = _gather(step.pool, chunk.pages[layer], 1)
    own = torch.arange(chunk.position, seen, device=query.device)[:, None]
    other = torch.arange(seen, device=query.device)[None, :]
    mask = other <= own
    if window is not None:
        mask &= other > own - window
    keys, values = keys[:, :, :seen], values[:, :, :seen]
    if asked.changed is not None:
        kv_heads, (_, heads, tokens, dim) = keys.shape[1], query.shape
        grouped = query.reshape(1, kv_heads, -1, dim)  # the query heads of a key head become rows of it
        repeated = mask.repeat(heads // kv_heads, 1)
        out = asked.changed.attend(grouped, keys, values, repeated, asked.scaling).view(1, heads, tokens, dim)
    else:
        out = F.scaled_dot_product_attention(query, keys, values, attn_mask=mask, scale=asked.scaling, enable_gqa=True)
    return out[0].transpose(0, 1)


def _gather(pool: PagePool, pages: torch.Tensor, requests: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pages of several requests, in order, as (requests, kv heads, tokens, dim)."""
    _, _, kv_heads, dim = pool.keys.shape

    def of(store: torch.Tensor) -> torch.Tensor:
        return store.index_select(0, pages).view(requests, -1, kv_heads, dim).transpose(1, 2)

    return of(pool.keys), of(pool.values)


def register() -> str:
    """Make `attend` known to transformers. Returns the name by which a model asks for it."""
    from transformers import AttentionInterface

    AttentionInterface.register(IMPLEMENTATION, attend)
    return IMPLEMENTATION
