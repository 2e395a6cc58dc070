"""Runs each Triton kernel in Triton's interpreter beside its twin in torch; prints the largest differences as JSON.

A program of its own, since the interpreter is chosen by the environment before Triton is imported:
``TRITON_INTERPRET=1 PYTHONPATH=<folder with triton> python interpreted_kernels.py``.
"""

from __future__ import annotations

import itertools
import json
from types import ModuleType

import torch

from helix_kit.runtime.worker import torch_kernels, triton_kernels
from helix_kit.runtime.worker.kv_cache import BlockTable, PagedRows, PagePool
from helix_kit.runtime.worker.static_batch import DeviceTables, HeadShape, StaticBatch, StepBuffers
from helix_kit.runtime.worker.step_kernels import StepKernels

STEPS = {
    "decodes": [(0, 1), (1, 1), (2, 1)],
    "one decode": [(1, 1)],
    "chunks": [(0, 18), (2, 3)],
    "mixed": [(1, 1), (0, 17), (2, 1)],
}
"""Rows of requests that have as many tokens as `CONTEXT` says before the step."""
CONTEXT = (21, 16, 36)
SHAPES = [HeadShape(4, 2, 16), HeadShape(7, 1, 24), HeadShape(2, 2, 32)]


def batch_of(kernels: ModuleType, heads: HeadShape, step: list[tuple[int, int]]) -> StaticBatch:
    """A static batch over a pool of random keys and values, with two rows of padding."""
    generator = torch.Generator().manual_seed(7)
    pool = PagePool(60, heads.num_kv_heads, heads.head_dim, torch.float32, torch.device("cpu"))
    for store in (pool.keys, pool.values):
        store.copy_(torch.randn(store.shape, generator=generator))
    pool.take(3)  # so that no request begins at page 0
    tables = [BlockTable(2) for _ in CONTEXT]
    for table, tokens in zip(tables, CONTEXT):
        table.grow(pool, tokens)
    on_device = DeviceTables(pool, (4, 6), 5, 8)
    for request, tokens in step:
        tables[request].grow(pool, tokens)
    table_rows = on_device.rows_of([(tables[request], 4) for request, _ in step])
    rows = sum(tokens for _, tokens in step) + 2
    buffers = StepBuffers(on_device, pool, 4, rows, 8, StepKernels(kernels), heads.block_rows)
    requests = [PagedRows(tables[request], 0, CONTEXT[request], tokens) for request, tokens in step]
    decode = len(requests) == rows - 2
    buffers.fill(rows, table_rows, requests, decode=decode)
    return buffers.batch(rows, decode=decode)


def differences() -> dict[str, float]:
    """Largest difference of each kernel from its twin, over all shapes and steps."""
    found: dict[str, float] = {}

    def note(name: str, ours: torch.Tensor, theirs: torch.Tensor) -> None:
        assert ours.shape == theirs.shape, (name, ours.shape, theirs.shape)
        found[name] = max(found.get(name, 0.0), float((ours - theirs).abs().max()))

    twins = (triton_kernels, torch_kernels)
    for width in (8, 48, 130):
        hidden, delta = torch.randn(3, width), torch.randn(3, width)
        weight = torch.randn(width)
        note("rms_norm", *(kernels.rms_norm(hidden, weight, 1e-5) for kernels in twins))
        sums = hidden.clone(), hidden.clone()
        note("add_rms_norm", *(kernels.add_rms_norm(h, delta, weight, 1e-5) for kernels, h in zip(twins, sums)))
        note("sums of add_rms_norm", *sums)
        note("silu_and_mul", *(kernels.silu_and_mul(torch.cat([hidden, delta], 1)) for kernels in twins))
    for heads, (name, step) in itertools.product(SHAPES, STEPS.items()):
        batches = [batch_of(kernels, heads, step) for kernels in twins]
        rows, dim = len(batches[0].positions), heads.head_dim
        real = rows - 2
        qkv = torch.randn(rows, (heads.num_heads + 2 * heads.num_kv_heads) * dim)
        for rotary_dim, has_norms in ((dim, False), (dim // 2, True)):
            angles = torch.randn(rows, rotary_dim // 2).repeat(1, 2)
            norms = (torch.randn(dim), torch.randn(dim)) if has_norms else None
            queries = [
                kernels.rotary_and_write(qkv, heads, (angles.cos(), angles.sin()), norms, 1e-6, batch.cache(5))
                for kernels, batch in zip(twins, batches)
            ]
            note("rotary_and_write", *queries)
            for store in ("keys", "values"):
                note(f"{store} of rotary_and_write", *(getattr(batch.pool, store)[:60] for batch in batches))
        key = torch.randn(rows, heads.num_kv_heads, dim)
        for kernels, batch in zip(twins, batches):
            kernels.write(key, -key, batch.cache(4))
        note("write", *(batch.pool.keys[:60] for batch in batches))
        query = torch.randn(rows, heads.num_heads, dim)
        for scaling, window in ((None, None), (0.3, 21)):
            results = [
                kernels.attend(query, batch.cache(5), batch, scaling, window)[:real]
                for kernels, batch in zip(twins, batches)
            ]
            note(f"attend, {name}", *results)
    return found


def dependence(heads: HeadShape, window: int | None) -> float:
    """By how much a row's attention by Triton depends on the rows beside it, in steps whose rows are all in blocks."""
    generator = torch.Generator().manual_seed(5)
    pool = PagePool(60, heads.num_kv_heads, heads.head_dim, torch.float32, torch.device("cpu"))
    for store in (pool.keys, pool.values):
        store.copy_(torch.randn(store.shape, generator=generator))
    tables = [BlockTable(1) for _ in range(3)]
    for table in tables:
        table.grow(pool, 90)
    on_device = DeviceTables(pool, (0, 1), 5, 8)
    rows_of = on_device.rows_of([(table, 0) for table in tables])
    query = torch.randn(20, heads.num_heads, heads.head_dim, generator=generator)
    results = []
    # The row at position 60 of the first request: alone, as a decode beside others, and as the first one of a chunk,
    # whose later rows see more tokens. It is always the first of its block: a processor's product of a whole block
    # rounds alike in all rows on a GPU, but not on a CPU.
    for step in ([(0, 60, 1)], [(1, 3, 9), (2, 80, 1), (0, 60, 1)], [(1, 40, 2), (0, 60, 15)]):
        buffers = StepBuffers(on_device, pool, 0, 20, 8, StepKernels(triton_kernels), heads.block_rows)
        requests = [PagedRows(tables[request], 0, position, tokens) for request, position, tokens in step]
        own = sum(tokens for *_, tokens in step[:-1])
        buffers.fill(buffers.max_rows, [rows_of[request] for request, *_ in step], requests, decode=False)
        batch = buffers.batch(buffers.max_rows, decode=False)
        beside = torch.randn(buffers.max_rows, heads.num_heads, heads.head_dim)
        beside[own] = query[0]
        results.append(triton_kernels.attend(beside, batch.cache(0), batch, None, window)[own])
    return max(float((result - results[0]).abs().max()) for result in results)


if __name__ == "__main__":
    torch.manual_seed(11)
    alike = {"a row beside others": max(dependence(heads, window) for heads in SHAPES for window in (None, 21))}
    print(json.dumps(differences() | alike))
