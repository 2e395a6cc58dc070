"""The step's kernels for CUDA devices, in Triton: norms, rotary embedding, gate, and attention over pages.

Each function has a twin of the same name and arguments in `helix_kit.runtime.worker.torch_kernels`, which says what is
computed; tests hold the two equal, with Triton's interpreter where there is no GPU. All arguments are tensors whose
addresses do not change and numbers that are the same in every step, so a CUDA graph can hold the launches. What changes
from step to step (positions, table rows, blocks) is read from tensors by the kernels.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from helix_kit.runtime.worker.kv_cache import PAGE_TOKENS
from helix_kit.runtime.worker.static_batch import HeadShape, LayerCache, StaticBatch, num_splits

LOG2_E = 1.4426950408889634
DEFAULT_PROCESSORS = 108


@triton.jit
def _add_rms_norm(hidden, delta, weight, out, eps, width, HAS_DELTA: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < width
    x = tl.load(hidden + row * width + column, mask=inside, other=0.0)
    if HAS_DELTA:
        x += tl.load(delta + row * width + column, mask=inside, other=0.0)
        tl.store(hidden + row * width + column, x, mask=inside)
    exact = x.to(tl.float32)
    scale = tl.rsqrt(tl.sum(exact * exact, axis=0) / width + eps)
    scaled = (exact * scale).to(x.dtype)
    tl.store(out + row * width + column, scaled * tl.load(weight + column, mask=inside, other=0.0), mask=inside)


@triton.jit
def _silu_and_mul(gate_up, out, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < width
    gate = tl.load(gate_up + row * 2 * width + column, mask=inside, other=0.0)
    up = tl.load(gate_up + row * 2 * width + width + column, mask=inside, other=0.0)
    exact = gate.to(tl.float32)
    activated = (exact / (1.0 + tl.exp(-exact))).to(gate.dtype)
    tl.store(out + row * width + column, activated * up, mask=inside)


@triton.jit
def _page_slot(table, table_stride, table_row, position, PAGE: tl.constexpr):
    page = tl.load(table + table_row * table_stride + position // PAGE).to(tl.int64)
    return page * PAGE + position % PAGE


@triton.jit
def _rotary_and_write(
    qkv, query, keys, values, table, table_stride, table_rows, positions, cos, sin, q_norm, k_norm, eps,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, DIM: tl.constexpr, ROTARY: tl.constexpr, HALF_BLOCK: tl.constexpr,
    DIM_BLOCK: tl.constexpr, HAS_NORM: tl.constexpr, PAGE: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    position = tl.load(positions + row)
    source = qkv + row * (HEADS + 2 * KV_HEADS) * DIM + head * DIM
    is_query = head < HEADS
    is_value = head >= HEADS + KV_HEADS
    slot = _page_slot(table, table_stride, tl.load(table_rows + row).to(tl.int64), position, PAGE)
    whole = tl.arange(0, DIM_BLOCK)
    in_head = whole < DIM
    if is_value:
        kept = tl.load(source + whole, mask=in_head, other=0.0)
        kv_head = head - HEADS - KV_HEADS
        tl.store(values + (slot * KV_HEADS + kv_head) * DIM + whole, kept, mask=in_head)
    else:
        half = tl.arange(0, HALF_BLOCK)
        in_half = half < ROTARY // 2
        first = tl.load(source + half, mask=in_half, other=0.0)
        second = tl.load(source + ROTARY // 2 + half, mask=in_half, other=0.0)
        # What the rotary embedding leaves as it is (partial rotary embedding), behind its ROTARY values.
        is_rest = in_head & (whole >= ROTARY)
        rest = tl.load(source + whole, mask=is_rest, other=0.0)
        if HAS_NORM:
            all_of_it = tl.load(source + whole, mask=in_head, other=0.0).to(tl.float32)
            scale = tl.rsqrt(tl.sum(all_of_it * all_of_it, axis=0) / DIM + eps)
            weight = k_norm
            if is_query:
                weight = q_norm
            first = (first.to(tl.float32) * scale).to(first.dtype) * tl.load(weight + half, mask=in_half, other=0.0)
            second_weight = tl.load(weight + ROTARY // 2 + half, mask=in_half, other=0.0)
            second = (second.to(tl.float32) * scale).to(second.dtype) * second_weight
            rest = (rest.to(tl.float32) * scale).to(rest.dtype) * tl.load(weight + whole, mask=is_rest, other=0.0)
        dtype = first.dtype
        cos_half = tl.load(cos + row * ROTARY + half, mask=in_half, other=0.0)
        sin_half = tl.load(sin + row * ROTARY + half, mask=in_half, other=0.0)
        first, second = first.to(tl.float32), second.to(tl.float32)
        turned_first = (first * cos_half - second * sin_half).to(dtype)
        turned_second = (second * cos_half + first * sin_half).to(dtype)
        target = keys + (slot * KV_HEADS + (head - HEADS)) * DIM
        if is_query:
            target = query + (row * HEADS + head) * DIM
        tl.store(target + half, turned_first, mask=in_half)
        tl.store(target + ROTARY // 2 + half, turned_second, mask=in_half)
        if ROTARY < DIM:
            tl.store(target + whole, rest, mask=is_rest)


@triton.jit
def _write(
    key, value, keys, values, table, table_stride, table_rows, positions,
    KV_HEADS: tl.constexpr, DIM: tl.constexpr, DIM_BLOCK: tl.constexpr, PAGE: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    kv_head = tl.program_id(1)
    position = tl.load(positions + row)
    slot = _page_slot(table, table_stride, tl.load(table_rows + row).to(tl.int64), position, PAGE)
    column = tl.arange(0, DIM_BLOCK)
    inside = column < DIM
    source = (row * KV_HEADS + kv_head) * DIM + column
    target = (slot * KV_HEADS + kv_head) * DIM + column
    tl.store(keys + target, tl.load(key + source, mask=inside, other=0.0), mask=inside)
    tl.store(values + target, tl.load(value + source, mask=inside, other=0.0), mask=inside)


@triton.jit
def _attend_tokens(
    query, keys, values, table, in_head, kv_head, row_positions, begin, end, scale_log2,
    KV_HEADS: tl.constexpr, DIM: tl.constexpr, WINDOW: tl.constexpr, ROWS: tl.constexpr, TOKENS: tl.constexpr,
    DIM_BLOCK: tl.constexpr, PAGE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Online softmax of `query` (ROWS, DIM_BLOCK) over tokens [begin, end) of a request: sums, maxima and totals."""
    column = tl.arange(0, DIM_BLOCK)
    maxima = tl.full((ROWS,), float("-inf"), tl.float32)
    totals = tl.zeros((ROWS,), tl.float32)
    sums = tl.zeros((ROWS, DIM_BLOCK), tl.float32)
    for first in range(begin, end, TOKENS):
        token = first + tl.arange(0, TOKENS)
        is_there = token < end
        page = tl.load(table + token // PAGE, mask=is_there, other=0).to(tl.int64)
        place = ((page * PAGE + token % PAGE) * KV_HEADS + kv_head) * DIM
        key = tl.load(keys + place[None, :] + column[:, None], mask=is_there[None, :] & in_head[:, None], other=0.0)
        scores = tl.dot(query, key, input_precision=PRECISION) * scale_log2
        is_seen = is_there[None, :] & (token[None, :] <= row_positions[:, None])
        if WINDOW > 0:
            is_seen = is_seen & (token[None, :] > row_positions[:, None] - WINDOW)
        scores = tl.where(is_seen, scores, float("-inf"))
        new_maxima = tl.maximum(maxima, tl.max(scores, axis=1))
        # A row that has seen nothing yet keeps the maximum of minus infinity: its factors must not become NaN.
        finite = tl.where(new_maxima == float("-inf"), 0.0, new_maxima)
        factors = tl.exp2(scores - finite[:, None])
        shrink = tl.exp2(maxima - finite)
        totals = totals * shrink + tl.sum(factors, axis=1)
        value = tl.load(values + place[:, None] + column[None, :], mask=is_there[:, None] & in_head[None, :], other=0.0)
        sums = sums * shrink[:, None] + tl.dot(factors.to(value.dtype), value, input_precision=PRECISION)
        maxima = new_maxima
    return sums, maxima, totals


@triton.jit
def _attend_blocks(
    query, out, keys, values, table, table_stride, table_rows, positions, block_starts, block_sizes, scale_log2,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, DIM: tl.constexpr, WINDOW: tl.constexpr, GROUP: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, TOKENS: tl.constexpr, DIM_BLOCK: tl.constexpr, PAGE: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Rows [start, start + size) of one request: a block of the step, with all query heads of one key head."""
    size = tl.load(block_sizes + tl.program_id(0))
    if size > 0:
        start = tl.load(block_starts + tl.program_id(0))
        kv_head = tl.program_id(1)
        place = tl.arange(0, BLOCK_ROWS * GROUP)
        row, member = place // GROUP, place % GROUP
        is_row = (row < size) & (member < HEADS // KV_HEADS)
        head = kv_head * (HEADS // KV_HEADS) + member
        column = tl.arange(0, DIM_BLOCK)
        in_head = column < DIM
        inside = is_row[:, None] & in_head[None, :]
        at = ((start + row).to(tl.int64) * HEADS + head) * DIM
        queries = tl.load(query + at[:, None] + column[None, :], mask=inside, other=0.0)
        first_position = tl.load(positions + start)
        begin = 0
        if WINDOW > 0:
            begin = tl.maximum(first_position - WINDOW + 1, 0) // TOKENS * TOKENS
        own_table = table + tl.load(table_rows + start).to(tl.int64) * table_stride
        sums, _, totals = _attend_tokens(
            queries, keys, values, own_table, in_head, kv_head, first_position + row, begin, first_position + size,
            scale_log2, KV_HEADS, DIM, WINDOW, BLOCK_ROWS * GROUP, TOKENS, DIM_BLOCK, PAGE, PRECISION,
        )  # fmt: skip
        result = sums / totals[:, None]
        tl.store(out + at[:, None] + column[None, :], result.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _attend_split(
    query, out, sums_out, maxima_out, totals_out, keys, values, table, table_stride, table_rows, positions, scale_log2,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, DIM: tl.constexpr, WINDOW: tl.constexpr, GROUP: tl.constexpr,
    SPLITS: tl.constexpr, TOKENS: tl.constexpr, DIM_BLOCK: tl.constexpr, PAGE: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """One part of the context of one row, for all query heads of one key head."""
    row = tl.program_id(0).to(tl.int64)
    kv_head = tl.program_id(1)
    split = tl.program_id(2)
    position = tl.load(positions + row)
    member = tl.arange(0, GROUP)
    is_head = member < HEADS // KV_HEADS
    head = kv_head * (HEADS // KV_HEADS) + member
    column = tl.arange(0, DIM_BLOCK)
    in_head = column < DIM
    inside = is_head[:, None] & in_head[None, :]
    place = (row * HEADS + head) * DIM
    queries = tl.load(query + place[:, None] + column[None, :], mask=inside, other=0.0)
    seen_from = 0
    if WINDOW > 0:
        seen_from = tl.maximum(position - WINDOW + 1, 0) // TOKENS * TOKENS
    part = tl.cdiv(tl.cdiv(position + 1 - seen_from, SPLITS), TOKENS) * TOKENS
    begin = seen_from + split * part
    end = tl.minimum(begin + part, position + 1)
    own_table = table + tl.load(table_rows + row).to(tl.int64) * table_stride
    sums, maxima, totals = _attend_tokens(
        queries, keys, values, own_table, in_head, kv_head, tl.zeros((GROUP,), tl.int32) + position, begin, end,
        scale_log2, KV_HEADS, DIM, WINDOW, GROUP, TOKENS, DIM_BLOCK, PAGE, PRECISION,
    )  # fmt: skip
    if SPLITS == 1:
        result = (sums / totals[:, None]).to(out.dtype.element_ty)
        tl.store(out + place[:, None] + column[None, :], result, mask=inside)
    else:
        part_of = (row * HEADS + head) * SPLITS + split
        tl.store(sums_out + part_of[:, None] * DIM + column[None, :], sums, mask=inside)
        tl.store(maxima_out + part_of, maxima, mask=is_head)
        tl.store(totals_out + part_of, totals, mask=is_head)


@triton.jit
def _join_splits(
    sums, maxima, totals, out,
    HEADS: tl.constexpr, DIM: tl.constexpr, SPLITS: tl.constexpr, DIM_BLOCK: tl.constexpr,
):  # fmt: skip
    place = tl.program_id(0).to(tl.int64) * HEADS + tl.program_id(1)
    split = tl.arange(0, SPLITS)
    column = tl.arange(0, DIM_BLOCK)
    in_head = column < DIM
    own_maxima = tl.load(maxima + place * SPLITS + split)
    factors = tl.exp2(own_maxima - tl.max(own_maxima, axis=0))
    total = tl.sum(tl.load(totals + place * SPLITS + split) * factors, axis=0)
    # A part without tokens was left out or is zero, and has the factor 0.
    at = (place * SPLITS + split)[:, None] * DIM + column[None, :]
    parts = tl.load(sums + at, mask=in_head[None, :], other=0.0)
    result = tl.sum(parts * factors[:, None], axis=0) / total
    tl.store(out + place * DIM + column, result.to(out.dtype.element_ty), mask=in_head)


def rms_norm(hidden: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Root mean square norm of each row of `hidden` (rows, width)."""
    rows, width = hidden.shape
    out = torch.empty_like(hidden)
    _add_rms_norm[(rows,)](hidden, hidden, weight, out, eps, width, HAS_DELTA=False, **_row_launch(width))
    return out


def add_rms_norm(hidden: torch.Tensor, delta: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Add `delta` to `hidden` in place; returns the norm of the sum."""
    rows, width = hidden.shape
    out = torch.empty_like(hidden)
    _add_rms_norm[(rows,)](hidden, delta, weight, out, eps, width, HAS_DELTA=True, **_row_launch(width))
    return out


def silu_and_mul(gate_up: torch.Tensor) -> torch.Tensor:
    """SiLU of the first half of each row, times the second half."""
    rows, width = gate_up.shape[0], gate_up.shape[1] // 2
    out = gate_up.new_empty(rows, width)
    block = min(1024, triton.next_power_of_2(width))
    _silu_and_mul[(rows, triton.cdiv(width, block))](gate_up, out, width, BLOCK=block, num_warps=4)
    return out


def rotary_and_write(
    qkv: torch.Tensor,
    heads: HeadShape,
    rotary: tuple[torch.Tensor, torch.Tensor],
    norms: tuple[torch.Tensor, torch.Tensor] | None,
    eps: float,
    cache: LayerCache,
) -> torch.Tensor:
    """Turn queries and keys by their positions, write keys and values to their pages; returns the queries."""
    rows, (cos, sin) = len(qkv), rotary
    query = qkv.new_empty(rows, heads.num_heads, heads.head_dim)
    rotary_dim = cos.shape[-1]
    q_norm, k_norm = norms or (qkv, qkv)
    _rotary_and_write[(rows, heads.num_heads + 2 * heads.num_kv_heads)](
        qkv, query, cache.keys, cache.values, cache.table, cache.table.stride(0), cache.table_rows, cache.positions,
        cos, sin, q_norm, k_norm, eps,
        HEADS=heads.num_heads, KV_HEADS=heads.num_kv_heads, DIM=heads.head_dim, ROTARY=rotary_dim,
        HALF_BLOCK=triton.next_power_of_2(rotary_dim // 2), DIM_BLOCK=triton.next_power_of_2(heads.head_dim),
        HAS_NORM=norms is not None, PAGE=PAGE_TOKENS, num_warps=1,
    )  # fmt: skip
    return query


def write(key: torch.Tensor, value: torch.Tensor, cache: LayerCache) -> None:
    """Write keys and values (rows, kv heads, head dim) to their pages."""
    rows, kv_heads, dim = key.shape
    _write[(rows, kv_heads)](
        key.contiguous(), value.contiguous(), cache.keys, cache.values, cache.table, cache.table.stride(0),
        cache.table_rows, cache.positions,
        KV_HEADS=kv_heads, DIM=dim, DIM_BLOCK=triton.next_power_of_2(dim), PAGE=PAGE_TOKENS, num_warps=1,
    )  # fmt: skip


def attend(
    query: torch.Tensor, cache: LayerCache, batch: StaticBatch, scaling: float | None, window: int | None
) -> torch.Tensor:
    """Causal attention of all rows of `query` (rows, heads, head dim) over the pages of their requests."""
    query = query.contiguous()
    rows, heads, dim = query.shape
    kv_heads = cache.keys.shape[2]
    out = torch.empty_like(query)
    scale_log2 = (dim**-0.5 if scaling is None else scaling) * LOG2_E
    group = triton.next_power_of_2(heads // kv_heads)
    shape = {
        "HEADS": heads, "KV_HEADS": kv_heads, "DIM": dim, "WINDOW": window or 0, "PAGE": PAGE_TOKENS,
        "DIM_BLOCK": max(16, triton.next_power_of_2(dim)),
        "PRECISION": "ieee" if query.dtype == torch.float32 else "tf32",
    }  # fmt: skip
    paged = (cache.keys, cache.values, cache.table, cache.table.stride(0), cache.table_rows, cache.positions)
    tokens = 64 if dim <= 128 and query.dtype != torch.float32 else 32
    if not batch.is_decode:
        _attend_blocks[(len(batch.block_sizes), kv_heads)](
            query, out, *paged, batch.block_starts, batch.block_sizes, scale_log2,
            GROUP=group, BLOCK_ROWS=batch.block_rows, TOKENS=tokens, **shape, num_warps=4, num_stages=2,
        )  # fmt: skip
        return out
    splits = num_splits(rows, kv_heads, _processors(query.device))
    sums = torch.empty(rows, heads, splits, dim, dtype=torch.float32, device=query.device)
    maxima = torch.empty(rows, heads, splits, dtype=torch.float32, device=query.device)
    totals = torch.empty_like(maxima)
    _attend_split[(rows, kv_heads, splits)](
        query, out, sums, maxima, totals, *paged, scale_log2,
        GROUP=max(group, 16), SPLITS=splits, TOKENS=tokens, **shape, num_warps=4, num_stages=3,
    )  # fmt: skip
    if splits > 1:
        block = shape["DIM_BLOCK"]
        _join_splits[(rows, heads)](
            sums, maxima, totals, out, HEADS=heads, DIM=dim, SPLITS=splits, DIM_BLOCK=block, num_warps=1
        )
    return out


def _processors(device: torch.device) -> int:
    if device.type != "cuda":
        return DEFAULT_PROCESSORS
    return torch.cuda.get_device_properties(device).multi_processor_count


def _row_launch(width: int) -> dict[str, int]:
    block = triton.next_power_of_2(width)
    return {"BLOCK": block, "num_warps": max(1, min(16, block // 512))}
