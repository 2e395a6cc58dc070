"""Products with weights of few bits on GPUs, by torch's own kernels where these suit.

Four bits: ``_weight_int4pack_mm`` (known as tinygemm, which torchao calls too) expands codes in registers, so that a
step of few rows reads a quarter of the memory. Codes are kept in its layout alone. With more rows they are expanded
from there, as on a CPU; a probe at load finds out where the layout puts each code.

Eight bits: ``_scaled_mm`` multiplies in E4M3. It needs rows in E4M3, too, so answers differ slightly from those of the
expanded weights. It is used only where ``HELIX_KIT_FP8_PRODUCTS=1`` asks for it.

Each kernel is compared with the expanded weights when the first weight is loaded on a device. Where it fails, or
conditions are not met, weights are expanded before each product, and the log says why.
"""

from __future__ import annotations

import functools
import logging
import os

import torch
import torch.nn.functional as F

from helix_kit.errors import InputError
from helix_kit.runtime.weights.low_bit import LowBitWeight, pack

log = logging.getLogger(__name__)

GROUPS = (32, 64, 128, 256)
"""Sizes of groups that torch's kernel for four bits knows."""
MANY_ROWS = 32
"""Up to so many rows the kernel for four bits multiplies: it expands the weights again for every 16 rows."""
FP8_PRODUCTS = "HELIX_KIT_FP8_PRODUCTS"
"""Environment variable: 1 multiplies in E4M3 where the card can, 0 or nothing expands the weights."""
_TILE_ROWS, _TILE_STEP = 8, 16
_LARGEST = 448.0
"""The largest number of E4M3."""
_TOLERANCE = {"int4": 0.01, "fp8": 0.06}
"""Of the largest result: the error of bfloat16, and that of rows in E4M3."""


class ExpandedProduct:
    """``x @ weight.T`` where the whole matrix is expanded each time."""

    name = "expanded before each product"

    def __init__(self, weight: LowBitWeight) -> None:
        self._weight = weight

    def multiply(self, x: torch.Tensor) -> torch.Tensor:
        """Rows (..., in) to rows (..., out)."""
        return F.linear(x, self._weight.expand(x.dtype))


class GpuInt4:
    """``x @ weight.T`` for codes in the layout of torch's kernel; scale and zero are in bfloat16."""

    name = "torch's kernel for four bits"

    def __init__(self, weight: LowBitWeight) -> None:
        assert weight.zeros is not None
        (self._outputs, self._inputs), self._group = weight.shape, weight.group
        self._inner = next(tiles for tiles in (8, 4, 2) if self._inputs % (_TILE_STEP * tiles) == 0)
        halves = weight.codes.view(self._outputs, weight.scales.shape[1], -1)
        self._packed = _pack(torch.stack([halves & 15, halves >> 4], dim=2).view(weight.shape), self._inner)
        # torch counts codes from 8, and adds what stands for the zero.
        shifts = (8 - weight.zeros.float()) * weight.scales
        self._table = torch.stack([weight.scales.t(), shifts.t()], dim=-1).to(torch.bfloat16).contiguous()
        self._places = _places(self._inner, weight.codes.device)

    @property
    def num_bytes(self) -> int:
        """Bytes in memory."""
        return self._packed.nbytes + self._table.nbytes

    def multiply(self, x: torch.Tensor) -> torch.Tensor:
        """Rows (..., in) to rows (..., out)."""
        rows = x.reshape(-1, self._inputs)
        if len(rows) <= MANY_ROWS:
            product = torch.ops.aten._weight_int4pack_mm(rows.contiguous(), self._packed, self._group, self._table)
        else:
            product = F.linear(rows, self.expand())
        return product.view(*x.shape[:-1], self._outputs)

    def expand(self) -> torch.Tensor:
        """The weights (outputs, inputs) in bfloat16."""
        tiles = (
            _codes_of(self._packed)
            .index_select(-1, self._places)
            .view(self._outputs // _TILE_ROWS, -1, _TILE_ROWS, _TILE_STEP * self._inner)
        )
        codes = tiles.transpose(1, 2).reshape(self._outputs, -1, self._group)
        scales, shifts = self._table.transpose(0, 1).float().unbind(-1)
        weights = (codes - 8) * scales.unsqueeze(-1) + shifts.unsqueeze(-1)
        return weights.view(self._outputs, self._inputs).to(torch.bfloat16)


def _pack(codes: torch.Tensor, inner: int) -> torch.Tensor:
    """Codes (outputs, inputs) in the kernel's layout. It takes two inputs in a byte, the first in the upper half."""
    first, second = codes.unflatten(1, (-1, 2)).unbind(-1)
    return torch.ops.aten._convert_weight_to_int4pack((first << 4 | second).contiguous(), inner)


def _codes_of(packed: torch.Tensor) -> torch.Tensor:
    """The codes of each tile, in the order in which the layout has them."""
    shifts = torch.arange(0, 32, 4, dtype=torch.int32, device=packed.device)
    return ((packed.flatten(2).unsqueeze(-1) >> shifts) & 15).flatten(2)


@functools.lru_cache(maxsize=16)
def _places(inner: int, device: torch.device) -> torch.Tensor:
    """Where the layout puts each code of a tile of 8 outputs and 16 x `inner` inputs."""
    number = torch.arange(_TILE_ROWS * _TILE_STEP * inner, device=device)
    digits = [
        _codes_of(_pack((number >> shift & 15).to(torch.uint8).view(_TILE_ROWS, -1), inner)).view(-1).long()
        for shift in (0, 4, 8)
    ]
    return (digits[0] | digits[1] << 4 | digits[2] << 8).argsort()


class GpuFp8:
    """``x @ weight.T`` in E4M3, for weights with one scale for each output. Each row of x has a scale of its own."""

    name = "torch's kernel for E4M3"

    def __init__(self, weight: LowBitWeight) -> None:
        self._codes = weight.codes.view(torch.float8_e4m3fn)
        self._scales = weight.scales.view(1, -1)

    def multiply(self, x: torch.Tensor) -> torch.Tensor:
        """Rows (..., in) to rows (..., out)."""
        rows = x.reshape(-1, x.shape[-1]).float()
        scales = (rows.abs().amax(-1, keepdim=True) / _LARGEST).clamp(min=torch.finfo(torch.float32).tiny)
        rounded = (rows / scales).clamp(-_LARGEST, _LARGEST).to(torch.float8_e4m3fn)
        product = torch._scaled_mm(rounded, self._codes.t(), scales, self._scales, out_dtype=torch.bfloat16)
        return product.view(*x.shape[:-1], len(self._codes))


def gpu_product(weight: LowBitWeight, dtype: torch.dtype | None) -> ExpandedProduct | GpuInt4 | GpuFp8:
    """How rows of `dtype`, where it is known, are multiplied with a kept weight on a GPU."""
    device = weight.codes.device
    reason = why_not(weight, dtype, device)
    if reason is not None:
        _say(logging.WARNING, f"{device}: weights of kind {weight.kind} are {ExpandedProduct.name}: {reason}")
        return ExpandedProduct(weight)
    chosen = GpuInt4(weight) if weight.kind == "int4" else GpuFp8(weight)
    _say(logging.INFO, f"{device}: weights of kind {weight.kind} are multiplied by {chosen.name}")
    return chosen


def why_not(weight: LowBitWeight, dtype: torch.dtype | None, device: torch.device) -> str | None:
    """Why torch's kernels do not multiply with this weight on the device; None: they do."""
    if weight.kind not in _TOLERANCE:
        return "torch has no kernel for them"
    if weight.kind == "fp8" and not wants_fp8_products():
        return f"{FP8_PRODUCTS} is not 1"
    if dtype != torch.bfloat16:
        return f"the layers compute in {str(dtype).removeprefix('torch.')}, and the kernel in bfloat16"
    least = (8, 0) if weight.kind == "int4" else (9, 0)
    found = torch.cuda.get_device_capability(device)
    if found < least:
        return f"the kernel needs compute capability {least[0]}.{least[1]}, and the card has {found[0]}.{found[1]}"
    outputs, inputs = weight.shape
    if weight.kind == "int4" and weight.group not in GROUPS:
        return f"groups of {weight.group} weights: expected {', '.join(map(str, GROUPS))}"
    if weight.kind == "fp8" and weight.scales.shape[1] != 1:
        return "scales of blocks: expected one for each output"
    multiples = (_TILE_ROWS, 2 * _TILE_STEP) if weight.kind == "int4" else (16, 16)
    if outputs % multiples[0] or inputs % multiples[1]:
        return f"{outputs} x {inputs} weights: expected multiples of {multiples[0]} x {multiples[1]}"
    return _failure(weight.kind, device)


@functools.cache
def _failure(kind: str, device: torch.device) -> str | None:
    """Compares the kernel with expanded weights; what is wrong with it, or None."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 256, (64, 256), generator=generator, dtype=torch.uint8)
    if kind == "int4":
        scales = torch.rand(64, 4, generator=generator) + 0.5
        weight = pack(codes & 15, scales, codes[:, :4] >> 4, 4).to(device)
    else:
        weight = LowBitWeight("fp8", codes & 0xBF, torch.rand(64, 1, generator=generator) + 0.5, None).to(device)
    rows = torch.randn(24, 256, generator=generator).to(device, torch.bfloat16)
    try:
        product = GpuInt4(weight) if kind == "int4" else GpuFp8(weight)
        found = [product.multiply(rows), product.multiply(rows[:1])]
        if isinstance(product, GpuInt4):
            found.append(F.linear(rows, product.expand()))
    except Exception as error:  # whatever a build of torch, a driver or a card may raise
        return f"torch's kernel fails ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
    expected = F.linear(rows.float(), weight.expand(torch.float32))
    for each in found:
        error_share = float((each.float() - expected[: len(each)]).abs().max() / expected.abs().max())
        if not error_share <= _TOLERANCE[kind]:
            return f"torch's kernel differs from the expanded weights by {error_share:.2g} of the largest result"
    return None


def wants_fp8_products() -> bool:
    """Whether products in E4M3 are asked for; InputError where the variable is neither 0 nor 1."""
    given = os.environ.get(FP8_PRODUCTS) or "0"
    if given not in ("0", "1"):
        raise InputError(f"expected 0 or 1, not {given!r}", where=FP8_PRODUCTS)
    return given == "1"


@functools.cache
def _say(level: int, message: str) -> None:
    """Log once in this process."""
    log.log(level, message)
