"""Products with matrices of few bits on a CPU, compiled by numba.

A row of weights is expanded into a buffer that stays in the processor's nearest cache, and multiplied by all rows of
the step before the next one is expanded. So memory gives the codes alone. torch's own product for four bits (which
torchao calls, too) takes 12 times as long as a float32 product where activations are float32; `torch_int4` uses it in
bfloat16, where it is fast.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from helix_kit.runtime.weights import low_bit

_INT4, _INT8, _FP8, _MXFP4 = range(4)
KINDS = {"int4": _INT4, "int8": _INT8, "fp8": _FP8, "mxfp4": _MXFP4}
_POWERS = np.append(2.0 ** (np.arange(255.0) - low_bit.EXPONENT_BIAS), np.nan).astype(np.float32)
"""What each stored exponent of a scale stands for; the last one is no number."""
_MXFP4_HALF = 16
"""Half of the 32 weights that share a scale."""


def _e4m3_values() -> np.ndarray[Any, Any]:
    """What each code of E4M3 stands for. The two codes that are no numbers are refused when weights are read."""
    codes = np.arange(256)
    exponents, mantissas = (codes >> 3) & 15, codes & 7
    normal = (1 + mantissas / 8) * 2.0 ** (exponents - 7)
    return (np.where(exponents == 0, mantissas / 8 * 2.0**-6, normal) * np.where(codes < 128, 1, -1)).astype(np.float32)


E4M3 = _e4m3_values()


@numba.njit(nogil=True, fastmath=True, cache=True)
def _e2m1(code):  # type: ignore[no-untyped-def] # pragma: no cover
    """What a code of E2M1 stands for: 0, 0.5, 1, 1.5, 2, 3, 4 and 6 lie on three lines. No table is read one by one."""
    step = np.float32(code & np.uint8(7))
    value = max(step * np.float32(0.5), step - np.float32(2), step * np.float32(2) - np.float32(8))
    return value if code < np.uint8(8) else -value


@numba.njit(nogil=True, fastmath=True, cache=True)
def _expand_row(kind, codes, scales, zeros, table, weights):  # type: ignore[no-untyped-def] # pragma: no cover
    groups = len(scales)
    group = len(weights) // groups
    width = len(codes) // groups
    for g in range(groups):
        scale = _POWERS[np.uint8(scales[g])] if kind == _MXFP4 else np.float32(scales[g])
        of_group = codes[g * width : (g + 1) * width]
        out = weights[g * group : (g + 1) * group]
        if kind == _INT4:
            zero = np.float32(zeros[g]) * scale
            high = out[width:]
            for j in range(width):
                out[j] = np.float32(of_group[j] & np.uint8(15)) * scale - zero
                high[j] = np.float32(of_group[j] >> np.uint8(4)) * scale - zero
        elif kind == _INT8:
            zero = np.float32(zeros[g]) * scale
            for j in range(width):
                out[j] = np.float32(of_group[j]) * scale - zero
        elif kind == _MXFP4:
            high = out[width:]
            for j in range(_MXFP4_HALF):  # a known length becomes a few vector instructions
                out[j] = _e2m1(of_group[j] & np.uint8(15)) * scale
                high[j] = _e2m1(of_group[j] >> np.uint8(4)) * scale
        else:
            for j in range(width):
                out[j] = table[of_group[j]] * scale


@numba.njit(nogil=True, fastmath=True, cache=True)
def multiply(kind, x, matrix, result, first, last):  # type: ignore[no-untyped-def] # pragma: no cover
    """Columns [first, last) of ``x @ weights.T``; `matrix` is codes, scales, zeros and the table of E4M3."""
    codes, scales, zeros, table = matrix
    weights = np.empty(x.shape[1], np.float32)
    for n in range(first, last):
        _expand_row(kind, codes[n], scales[n], zeros[n], table, weights)
        for m in range(x.shape[0]):
            row, total = x[m], np.float32(0)
            for k in range(len(row)):
                total += row[k] * weights[k]
            result[m, n] = total


@numba.njit(nogil=True, fastmath=True, cache=True)
def expand(kind, matrix, weights, first, last):  # type: ignore[no-untyped-def] # pragma: no cover
    """Outputs [first, last) of a matrix, in float32."""
    codes, scales, zeros, table = matrix
    for n in range(first, last):
        _expand_row(kind, codes[n], scales[n], zeros[n], table, weights[n])


@numba.njit(nogil=True, fastmath=True, cache=True)
def _bfloat16_of(bits):  # type: ignore[no-untyped-def] # pragma: no cover
    """The bits of a float32, rounded to those of a bfloat16: the nearest, the even one between two."""
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    return np.uint16((bits + np.uint32(0x7FFF) + odd) >> np.uint32(16))


@numba.njit(nogil=True, fastmath=True, cache=True)
def expand_to_bfloat16(kind, matrix, weights, first, last):  # type: ignore[no-untyped-def] # pragma: no cover
    """As `expand`; `weights` are the bits of bfloat16."""
    codes, scales, zeros, table = matrix
    values = np.empty(weights.shape[1], np.float32)
    bits = values.view(np.uint32)
    for n in range(first, last):
        _expand_row(kind, codes[n], scales[n], zeros[n], table, values)
        out = weights[n]
        for k in range(len(bits)):
            out[k] = _bfloat16_of(bits[k])


def _block_expander(half: int) -> Any:
    """The kernel for blocks of twice so many outputs: loops of a known length become a few vector instructions."""

    @numba.njit(nogil=True, fastmath=True, cache=True)
    def expand_blocks(codes, table, weights, first, last):  # type: ignore[no-untyped-def] # pragma: no cover
        inputs = codes.shape[1]
        group = inputs // len(table)
        scales, shifts = np.empty(2 * half, np.float32), np.empty(2 * half, np.float32)
        values = np.empty(2 * half, np.float32)
        bits = values.view(np.uint32)
        for b in range(first, last):
            at = 2 * half * b
            for g in range(len(table)):
                for j in range(2 * half):
                    scales[j] = table[g, at + j, 0]
                    shifts[j] = table[g, at + j, 1] - np.float32(8) * scales[j]
                for k in range(g * group, (g + 1) * group):
                    row, out = codes[b, k], weights[k, at : at + 2 * half]
                    for j in range(half):
                        values[j] = np.float32(row[j] & np.uint8(15)) * scales[j] + shifts[j]
                    for j in range(half):
                        values[half + j] = np.float32(row[j] >> np.uint8(4)) * scales[half + j] + shifts[half + j]
                    for j in range(2 * half):
                        out[j] = _bfloat16_of(bits[j])

    return expand_blocks


EXPAND_BLOCKS = {2 * half: _block_expander(half) for half in (16, 32)}
"""Outputs of a block in torch's layout -> kernel that expands blocks [first, last) to bfloat16, a row for each input.

Its `codes` are (blocks, inputs, half a block), its `table` (groups, outputs, 2) is scale, and what is added, and its
`weights` (inputs, outputs) are the bits of bfloat16.
"""
