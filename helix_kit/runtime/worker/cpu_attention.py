"""Attention of requests that decode, on a CPU in float32, over the pages where their keys and values lie.

Each request has one row. torch would have its keys and values gathered into one tensor first, which takes longer than
the attention itself.
"""

from __future__ import annotations

import functools

import numba
import numpy as np
import torch

from helix_kit.runtime.worker.attention import DecodeBatch
from helix_kit.runtime.worker.cpu_product import divide
from helix_kit.runtime.worker.kv_cache import PAGE_TOKENS, PagePool

FLOATS = {"reassoc", "contract", "nsz", "arcp"}
"""What the compiler may assume; numbers that are no numbers stay so."""
FEW_SCORES = 1 << 15
"""Scores of a step up to which one thread takes less time than torch does with several."""
_LOWEST = np.float32(-87.0)
"""Its exponential is the smallest that float32 holds in full."""
_LOG2_E, _LN_2, _LN_2_REST = np.float32(1.44269504), np.float32(0.693359375), np.float32(-2.12194440e-4)
"""ln 2 in two parts: multiples of the first one are exact."""


@numba.njit(nogil=True, fastmath={"contract"}, cache=True)
def _exponentials(values, bits):  # type: ignore[no-untyped-def] # pragma: no cover
    """e to the power of `values`, none of which is above 0, in place. `bits` (int32) are scratch of the same length.

    The series is that of Cephes' expf; it becomes vector instructions, which numba's own function does not.
    """
    powers = bits.view(np.float32)
    for i in range(len(values)):
        value = _LOWEST if values[i] < _LOWEST else values[i]
        whole = np.floor(value * _LOG2_E + np.float32(0.5))
        rest = value - whole * _LN_2
        rest = rest - whole * _LN_2_REST
        series = np.float32(1.9875691500e-4)
        series = series * rest + np.float32(1.3981999507e-3)
        series = series * rest + np.float32(8.3334519073e-3)
        series = series * rest + np.float32(4.1665795894e-2)
        series = series * rest + np.float32(1.6666665459e-1)
        series = series * rest + np.float32(5.0000001201e-1)
        values[i] = series * rest * rest + rest + np.float32(1)
        bits[i] = (np.int32(whole) + np.int32(127)) << np.int32(23)
    for i in range(len(values)):
        values[i] *= powers[i]


@numba.njit(nogil=True, fastmath=FLOATS, cache=True)
def _attend(query, table, positions, pages, asked, result, first, last):  # type: ignore[no-untyped-def] # pragma: no cover
    """Rows [first, last). `asked` are the factor of the scores and the window in tokens, 0 for none."""
    keys, values = pages
    scaling, window = asked
    kv_heads, dim = keys.shape[2], keys.shape[3]
    group = query.shape[1] // kv_heads
    longest = 0
    for row in range(first, last):
        longest = max(longest, positions[row] + 1)
    scores, bits = np.empty((group, longest), np.float32), np.empty(longest, np.int32)
    for row in range(first, last):
        seen = positions[row] + 1
        begin = max(0, seen - window) if window else 0
        for kv_head in range(kv_heads):
            own = query[row, kv_head * group : (kv_head + 1) * group]
            out = result[row, kv_head * group : (kv_head + 1) * group]
            for token in range(begin, seen):
                key = keys[table[row, token // PAGE_TOKENS], token % PAGE_TOKENS, kv_head]
                for head in range(group):
                    total = np.float32(0)
                    for i in range(dim):
                        total += own[head, i] * key[i]
                    scores[head, token - begin] = total * np.float32(scaling)
            for head in range(group):
                weights = scores[head, : seen - begin]
                highest = weights[0]
                for i in range(len(weights)):
                    highest = max(highest, weights[i])
                for i in range(len(weights)):
                    weights[i] -= highest
                _exponentials(weights, bits[: len(weights)])
                total = np.float32(0)
                for i in range(len(weights)):
                    total += weights[i]
                for i in range(len(weights)):
                    weights[i] /= total
                for i in range(dim):
                    out[head, i] = np.float32(0)
            for token in range(begin, seen):
                value = values[table[row, token // PAGE_TOKENS], token % PAGE_TOKENS, kv_head]
                for head in range(group):
                    weight = scores[head, token - begin]
                    for i in range(dim):
                        out[head, i] += weight * value[i]


def suits(decodes: DecodeBatch, heads: int) -> bool:
    """Whether the loop takes less time than torch; torch divides the heads and the tokens of one request, too."""
    threads, requests = torch.get_num_threads(), len(decodes.positions)
    return threads == 1 or requests >= threads or heads * decodes.pages.shape[-1] * PAGE_TOKENS <= FEW_SCORES


def attend_decodes(
    pool: PagePool, decodes: DecodeBatch, layer: int, query: torch.Tensor, scaling: float | None, window: int | None
) -> torch.Tensor:
    """Attention of `query` (requests, heads, head dim), in the same shape; `layer` is its place in the step."""
    result = torch.empty(query.shape)
    asked = (query.shape[-1] ** -0.5 if scaling is None else scaling, window or 0)
    pages = (pool.keys.numpy(), pool.values.numpy())
    arrays = (query.contiguous().numpy(), decodes.pages[layer].numpy(), decodes.positions[:, 0].numpy(), pages)
    divide(len(query), functools.partial(_attend, *arrays, asked, result.numpy()))
    return result


def load() -> None:
    """Compile the loop, or read it from numba's cache, so that the first step need not."""
    pages = (np.zeros((1, PAGE_TOKENS, 1, 1), np.float32),) * 2
    query, table = np.zeros((1, 1, 1), np.float32), np.zeros((1, 1), np.int64)
    _attend(query, table, np.zeros(1, np.int64), pages, (1.0, 0), np.zeros((1, 1, 1), np.float32), 0, 1)
