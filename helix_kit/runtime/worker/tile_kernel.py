"""Products of few float32 rows with a matrix as its file has it, on a CPU, by instructions that are written out.

A step of few rows reads all weights once and does little with them, so its time is that of the memory. A tile is some
rows times some outputs: its sums stay in registers while the inputs pass, a vector at a time, and the weights that
come two tiles later are already asked for. Weights need no copy in another layout. (960 x 576 weights that no cache
holds, one core of an AMD EPYC, GB/s read: with one row 37, torch 16; with eight rows 36, torch 9, oneDNN's layout 24.)

The instructions are LLVM's general ones, so any processor can run them. `layout_choice` measures whether they are the
fastest.
"""

from __future__ import annotations

import functools
from typing import Any

import llvmlite.binding
import numba
import numpy as np
import torch
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from helix_kit.runtime.worker.cpu_product import divide

_FEATURES = llvmlite.binding.get_host_cpu_features()
_HAS_WIDE = bool(_FEATURES.get("avx512f"))
LANES = 16 if _HAS_WIDE else 8
"""Numbers in a vector. Processors with narrower vectors take two of theirs for it."""
MAX_ROWS = 8 if _HAS_WIDE else 4
"""Rows of a tile. Their sums take 24 of 32 registers, or 12 of 16."""
OUTPUTS = 3
"""Outputs of a tile."""
PART_NUMBERS = 4608
"""Numbers of a tile's rows that are multiplied at once, 18 KB: they and the weights of this tile and of those ahead fit
into the nearest cache."""
BLOCK_OUTPUTS = 48
"""Outputs that a tile's rows are multiplied with before the rows of the next tile are: their weights stay in the
second-level cache."""
TILES_AHEAD = 2
"""How many tiles before they are used weights are asked for."""

_REAL, _WORD, _INDEX = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_VECTOR = ir.VectorType(_REAL, LANES)
_BYTES = ir.IntType(8).as_pointer()


def _sum_of_vector(builder: Any, vector: Any) -> Any:
    kind = ir.FunctionType(_REAL, [_REAL, _VECTOR])
    reduce = cgutils.get_or_insert_function(builder.module, kind, f"llvm.vector.reduce.fadd.v{LANES}f32")
    return builder.call(reduce, [_REAL(0.0), vector], fastmath=("reassoc",))


def _ask_for(builder: Any, start: Any, offset: Any) -> None:
    """Ask for the memory at an address, which need not exist, without waiting for it."""
    kind = ir.FunctionType(ir.VoidType(), [_BYTES, _WORD, _WORD, _WORD])
    prefetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch")
    address = builder.bitcast(builder.gep(start, [offset]), _BYTES)
    builder.call(prefetch, [address, *(_WORD(value) for value in (0, 3, 1))])  # to read, to the nearest cache, data


def _load(builder: Any, start: Any, offset: Any) -> Any:
    loaded = builder.load(builder.bitcast(builder.gep(start, [offset]), _VECTOR.as_pointer()))
    loaded.align = 4
    return loaded


def _tile(rows: int, outputs: int) -> Any:
    """The intrinsic for a tile of so many rows and outputs."""

    @intrinsic  # type: ignore[misc]
    def tile(typingctx, x, weight, result, row, output, begin, end):  # type: ignore[no-untyped-def]
        """Add the inputs [begin, end) of rows [row, row + rows) and outputs [output, output + outputs) to `result`."""

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            arrays = [
                context.make_array(kind)(context, builder, value)
                for kind, value in zip(signature.args[:3], args[:3], strict=True)
            ]
            inputs, width = (builder.extract_value(arrays[i].shape, 1) for i in (0, 2))

            def starts(array: Any, first: Any, count: int, length: Any) -> list[Any]:
                places = [builder.mul(builder.add(first, _INDEX(i)), length) for i in range(count)]
                return [builder.gep(array.data, [place]) for place in places]

            from_rows = starts(arrays[0], args[3], rows, inputs)
            from_weights = starts(arrays[1], args[4], outputs, inputs)
            ahead = builder.mul(inputs, _INDEX(TILES_AHEAD * outputs))
            before, loop, after = builder.block, *(builder.append_basic_block(name) for name in ("inputs", "done"))
            builder.branch(loop)
            builder.position_at_end(loop)
            at = builder.phi(_INDEX)
            at.add_incoming(args[5], before)
            sums = [[builder.phi(_VECTOR) for _ in range(outputs)] for _ in range(rows)]
            weights = [_load(builder, start, at) for start in from_weights]
            for start in from_weights:
                _ask_for(builder, start, builder.add(at, ahead))
            for own, start in zip(sums, from_rows, strict=True):
                values = _load(builder, start, at)
                for place, weight_values in enumerate(weights):
                    product = builder.fmul(values, weight_values, flags=["contract"])
                    total = builder.fadd(own[place], product, flags=["contract"])
                    own[place].add_incoming(ir.Constant(_VECTOR, [0.0] * LANES), before)
                    own[place].add_incoming(total, loop)
                    own[place] = total
            following = builder.add(at, _INDEX(LANES))
            at.add_incoming(following, loop)
            builder.cbranch(builder.icmp_signed("<", following, args[6]), loop, after)
            builder.position_at_end(after)
            for own, start in zip(sums, starts(arrays[2], args[3], rows, width), strict=True):
                for place, total in enumerate(own):
                    target = builder.gep(start, [builder.add(args[4], _INDEX(place))])
                    before_these = builder.load(target)
                    before_these.align = 4
                    summed = builder.fadd(before_these, _sum_of_vector(builder, total))
                    builder.store(summed, target).align = 4
            return context.get_dummy_value()

        return types.void(x, weight, result, row, output, begin, end), codegen

    return tile


def _tiles_of(outputs: int) -> Any:
    """Compiled code that adds a tile of 1 to 8 rows and `outputs` outputs.

    It is not cached itself, since a closure would not be found again; `_multiply`, which contains it, is.
    """
    one, two, three, four, five, six, seven, eight = (_tile(rows, outputs) for rows in range(1, 9))

    @numba.njit(nogil=True, fastmath=True)
    def multiply(x, weight, result, row, rows, output, begin, end):  # type: ignore[no-untyped-def] # pragma: no cover
        if rows == 1:
            one(x, weight, result, row, output, begin, end)
        elif rows == 2:
            two(x, weight, result, row, output, begin, end)
        elif rows == 3:
            three(x, weight, result, row, output, begin, end)
        elif rows == 4:
            four(x, weight, result, row, output, begin, end)
        elif rows == 5:
            five(x, weight, result, row, output, begin, end)
        elif rows == 6:
            six(x, weight, result, row, output, begin, end)
        elif rows == 7:
            seven(x, weight, result, row, output, begin, end)
        else:
            eight(x, weight, result, row, output, begin, end)

    return multiply


_multiply_tile, _multiply_last = _tiles_of(OUTPUTS), _tiles_of(1)


@numba.njit(nogil=True, fastmath=True, cache=True)
def _multiply(x, weight, result, max_rows, part, first, last):  # type: ignore[no-untyped-def] # pragma: no cover
    """Add outputs [first, last) of all rows to `result`, `part` inputs at a time.

    Rows are divided evenly among tiles.
    """
    count, inputs = x.shape
    tiles = -(-count // max_rows)
    for begin in range(0, inputs, part):
        end = min(begin + part, inputs)
        for start in range(first, last, BLOCK_OUTPUTS):
            stop = min(start + BLOCK_OUTPUTS, last)
            whole = stop - (stop - start) % OUTPUTS
            for tile in range(tiles):
                row = count * tile // tiles
                rows = count * (tile + 1) // tiles - row
                for output in range(start, whole, OUTPUTS):
                    _multiply_tile(x, weight, result, row, rows, output, begin, end)
                for output in range(whole, stop):
                    _multiply_last(x, weight, result, row, rows, output, begin, end)


class TileProduct:
    """``x @ weight.T`` for a `weight` (out, in) that `suits` the kernel."""

    def __init__(self, weight: torch.Tensor) -> None:
        self._weight: np.ndarray[Any, Any] = weight.numpy()

    @staticmethod
    def suits(weight: torch.Tensor) -> bool:
        """Whether the kernel multiplies with this matrix: float32, row by row, whole vectors of inputs."""
        return weight.dtype == torch.float32 and weight.is_contiguous() and weight.shape[1] % LANES == 0

    def multiply(self, x: torch.Tensor) -> torch.Tensor:
        """Rows (..., in) to rows (..., out)."""
        outputs, inputs = self._weight.shape
        rows = x.reshape(-1, inputs).contiguous()
        result = rows.new_zeros((len(rows), outputs))
        arrays = (rows.numpy(), self._weight, result.numpy())
        parts = max(1, -(-inputs * min(len(rows), MAX_ROWS) // PART_NUMBERS))
        part = -(-inputs // parts // LANES) * LANES
        divide(outputs, functools.partial(_multiply, *arrays, MAX_ROWS, part))
        return result.view(*x.shape[:-1], outputs)
