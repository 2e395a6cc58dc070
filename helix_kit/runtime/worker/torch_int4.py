"""Products of bfloat16 rows with weights of four bits on a CPU, by torch's kernel where it is the faster one.

torch multiplies bfloat16 rows with packed codes by vector instructions, which our kernels, in float32, cannot match:
one row takes a quarter to a third of the time. It expands the weights again for every four rows, so with more rows the
codes are expanded once, for some outputs at a time, and multiplied by torch's ordinary product. Where `onednn_block`
knows the layout of that product, they are expanded into it, and the product saves its own copy. How many rows these are
is measured (`rows_by_torch`). Codes are kept in torch's layout alone: a second copy would cost what four bits save.
``HELIX_KIT_INT4_COPIES=1`` keeps an expanded copy of each matrix beside the codes, for machines with more memory than
speed: a product of many rows then takes the time of bfloat16 weights, and one of few rows that of four bits.

The packed layout differs between processors. `packed_block` finds out which one this torch has. Where it is another one
than is known here, our kernels are used.

Scale and zero of a group are kept in bfloat16, as torch's kernel wants them. The error is that of weights in bfloat16.
"""

from __future__ import annotations

import functools
import math
import os
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from helix_kit._files import cache_dir
from helix_kit.errors import InputError
from helix_kit.runtime.weights.low_bit import LowBitWeight, quantize
from helix_kit.runtime.worker import layout_choice, pair_kernel, timed_choice
from helix_kit.runtime.worker.cpu_linear import PADDED_FROM, ROW_STEP
from helix_kit.runtime.worker.cpu_product import CpuProduct, divide, divide_products
from helix_kit.runtime.worker.onednn_block import OneDnnBlock
from helix_kit.runtime.worker.timed_choice import Times, least_times

BLOCKS = (64, 32)
"""Outputs that torch packs together, with the instructions of AVX-512 and of AVX2."""
GROUPS = (32, 64, 128, 256)
"""Sizes of groups that torch's kernel knows."""
MANY_ROWS = 8
"""Up to so many rows torch's kernel multiplies where nothing is measured. With more, expanded weights make up for
themselves."""
MANY_ROWS_WITH_COPIES = 4
"""The same where expanded copies are kept: torch's kernel expands the weights once for so many rows."""
ROW_COUNTS = (1, 4, 8, 16, 32)
"""Numbers of rows that are timed."""
BLOCK_WEIGHTS = 1 << 20
"""Weights that are expanded at once with more rows: 2 MB of bfloat16."""
COPIES = "HELIX_KIT_INT4_COPIES"
"""Environment variable: 1 keeps expanded copies, 0 or nothing does not."""
CACHE_VERSION = 4
"""Is raised when the meaning of a stored choice changes."""


class TorchInt4:
    """``x @ weight.T`` for a kept weight that suits torch's kernel, which multiplies up to `many_rows` rows."""

    def __init__(self, weight: LowBitWeight, many_rows: int = MANY_ROWS) -> None:
        from helix_kit.runtime.worker import low_bit_kernels

        assert weight.zeros is not None
        block = packed_block()
        assert block is not None
        self._expand = low_bit_kernels.EXPAND_BLOCKS[block]
        self._block, self.group, self.many_rows = block, weight.group, many_rows
        self._outputs, self._inputs = weight.shape
        self.packed = _pack(_codes_of(weight), block)
        # torch counts codes from 8, and adds what stands for the zero.
        shifts = (8 - weight.zeros.float()) * weight.scales
        self.table = torch.stack([weight.scales.t(), shifts.t()], dim=-1).to(torch.bfloat16).contiguous()
        self._copy = self._expanded() if keeps_copies() else None

    @property
    def num_bytes(self) -> int:
        """Bytes in memory."""
        return self.packed.nbytes + self.table.nbytes + (0 if self._copy is None else self._copy.nbytes)

    def multiply(self, x: torch.Tensor) -> torch.Tensor:
        """Rows (..., in) to rows (..., out)."""
        rows = x.reshape(-1, self._inputs)
        product = self._by_kernel(rows) if len(rows) <= self.many_rows else self.multiply_many(rows)
        return product.view(*x.shape[:-1], self._outputs)

    def _by_kernel(self, rows: torch.Tensor) -> torch.Tensor:
        return torch.ops.aten._weight_int4pack_mm_for_cpu(rows.contiguous(), self.packed, self.group, self.table)

    def multiply_many(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows (rows, in) to rows (rows, out), by torch's product with expanded weights."""
        return self._expand_and_multiply(rows) if self._copy is None else F.linear(rows, self._copy)

    def _expanded(self) -> torch.Tensor:
        """The whole matrix (outputs, inputs) in bfloat16, each weight rounded as where it is expanded for a product."""
        codes = self.packed.numpy().reshape(-1, self._inputs, self._block // 2)
        weights = np.empty((self._inputs, self._outputs), np.uint16)
        divide(len(codes), functools.partial(self._expand, codes, self.table.float().numpy(), weights))
        return torch.from_numpy(weights).view(torch.bfloat16).t().contiguous()

    def _expand_and_multiply(self, rows: torch.Tensor) -> torch.Tensor:
        count = len(rows)
        if count > PADDED_FROM:  # oneDNN makes a kernel for each number of rows
            rows = F.pad(rows, (0, 0, 0, -count % ROW_STEP))
        result = rows.new_empty((len(rows), self._outputs))
        divide_products(self._outputs // self._block, functools.partial(self._multiply_blocks, rows, result))
        return result[:count]

    def _multiply_blocks(self, rows: torch.Tensor, result: torch.Tensor, start: int, end: int) -> None:
        """The outputs of blocks [start, end)."""
        codes = self.packed.numpy().reshape(-1, self._inputs, self._block // 2)
        table = self.table.float().numpy()
        at_once = max(1, BLOCK_WEIGHTS // self._inputs // self._block)
        for first in range(start, end, at_once):
            last = min(first + at_once, end)
            outputs = slice(first * self._block, last * self._block)
            part = (codes[first:last], table[:, outputs])
            block = self._onednn_block(last - first)
            if block is not None:
                pair_kernel.expand_pairs(*part, block.words, 0, last - first)
                result[:, outputs] = block.multiply(rows)
                continue
            weights = np.empty((self._inputs, part[0].size * 2 // self._inputs), np.uint16)
            self._expand(*part, weights, 0, last - first)
            result[:, outputs] = rows @ torch.from_numpy(weights).view(torch.bfloat16)

    def _onednn_block(self, blocks: int) -> OneDnnBlock | None:
        """Where these blocks may be expanded in the layout of torch's product."""
        if self._block != pair_kernel.BLOCK:
            return None
        return OneDnnBlock.of(blocks * self._block, self._inputs)


def _codes_of(weight: LowBitWeight) -> torch.Tensor:
    """A code for each weight (outputs, inputs), uint8."""
    halves = weight.codes.view(len(weight.codes), weight.scales.shape[1], -1)
    return torch.stack([halves & 15, halves >> 4], dim=2).view(weight.shape)


def _pack(codes: torch.Tensor, block: int) -> torch.Tensor:
    """Codes in torch's layout: for each block of outputs and each input, the block's first half in the lower bits."""
    by_block = codes.view(-1, block, codes.shape[1]).transpose(1, 2)
    packed = by_block[..., : block // 2] | (by_block[..., block // 2 :] << 4)
    return packed.contiguous().view(codes.shape[0], codes.shape[1] // 2)


@functools.cache
def packed_block() -> int | None:
    """How many outputs this torch packs together; None where it has no such kernel, or another layout."""
    codes = (torch.arange(2 * max(BLOCKS) * 64) * 2654435761 >> 7).view(-1, 64).remainder(16)
    try:
        theirs = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes.int(), 1)
    except (AttributeError, RuntimeError):  # a build of torch without it
        return None
    return next((block for block in BLOCKS if torch.equal(theirs, _pack(codes.to(torch.uint8), block))), None)


def keeps_copies() -> bool:
    """Whether expanded copies are kept; InputError where the variable is neither 0 nor 1."""
    given = os.environ.get(COPIES) or "0"
    if given not in ("0", "1"):
        raise InputError(f"expected 0 or 1, not {given!r}", where=COPIES)
    return given == "1"


def rows_by_torch(weight: LowBitWeight, dtype: torch.dtype | None) -> int | None:
    """Up to how many rows of `dtype` torch's kernel multiplies with the weight; None: it takes no part in products.

    It cannot compute them, or our kernels are faster on this machine.
    """
    if dtype != torch.bfloat16 or weight.kind != "int4" or weight.codes.device.type != "cpu":
        return None
    (outputs, inputs), mode, block = weight.shape, layout_choice.mode(), packed_block()
    if mode == "stored" or block is None or outputs % block or weight.group not in GROUPS:
        return None
    if mode == "shape" or outputs * inputs < layout_choice.MIN_MEASURED_SIZE:
        return MANY_ROWS_WITH_COPIES if keeps_copies() else MANY_ROWS
    return _measured(torch.get_num_threads(), outputs, inputs, weight.group, keeps_copies())


@functools.cache
def _measured(threads: int, outputs: int, inputs: int, group: int, copies: bool) -> int | None:
    """The stored choice; else one is measured and stored."""
    key = ["int4", CACHE_VERSION, layout_choice.processor(), torch.__version__, threads, outputs, inputs, group, copies]
    stored = layout_choice.kept_choice(
        cache_dir(),
        key,
        lambda: measure(outputs, inputs),
        is_valid=lambda data: data["rows"] is None or type(data["rows"]) is int,
    )
    if stored is None:
        return MANY_ROWS_WITH_COPIES if copies else MANY_ROWS
    return stored["rows"]


def measure(outputs: int, inputs: int) -> dict[str, int | None] | None:
    """``{"rows": rows}``: up to how many rows torch's kernel multiplies matrices of this shape; None: ours do instead.

    None in place of the dict: the times contradict each other.
    """
    outputs = min(outputs, max(*BLOCKS, layout_choice.MAX_TIMED_SIZE // inputs // 64 * 64))
    weight = quantize(torch.linspace(-1, 1, outputs * inputs).view(outputs, inputs), "int4")
    theirs, ours = TorchInt4(weight), CpuProduct(weight)
    ways = {"kernel": theirs._by_kernel, "expanded": theirs.multiply_many, "ours": ours.multiply}
    clock = timed_choice.clock_of_products()

    def take_times() -> Times:
        by_rows = []
        for rows in ROW_COUNTS:
            x = torch.ones(rows, inputs, dtype=torch.bfloat16)
            by_rows.append(least_times({name: functools.partial(way, x) for name, way in ways.items()}, clock))
        return {name: tuple(least[name] for least in by_rows) for name in ways}

    choice = timed_choice.agreed_choice(take_times, fastest, _log_time)
    return None if choice is None else {"rows": choice.kernel_rows}


class Choice(NamedTuple):
    """Which kernels multiply."""

    kernel_rows: int | None
    """Up to so many rows torch's kernel, and torch's product with more; None: our kernels, whatever the number."""


def fastest(times: Times) -> Choice:
    """The choice with the least mean logarithm of the times; ours only if they are faster than all of torch's."""
    choices = [Choice(rows) for rows in (0, *ROW_COUNTS)]
    return min([*choices, Choice(None)], key=lambda choice: _log_time(choice, times))


def _log_time(choice: Choice, times: Times) -> float:
    """Mean logarithm of the time over the numbers of rows."""
    last = choice.kernel_rows
    names = ["ours" if last is None else "kernel" if rows <= last else "expanded" for rows in ROW_COUNTS]
    return sum(math.log(times[name][index]) for index, name in enumerate(names)) / len(names)
