"""Matrices of few bits, kept as codes in memory: a weight is ``(code - zero) * scale``, or a small number times that.

Scale and zero are shared by a group of neighbouring inputs of one output. Whatever the checkpoint's format, a matrix is
kept in this one form. Codes of four bits lie two in a byte: the lower halves of a group's bytes are its first half, the
upper halves its second one, so that whole halves can be expanded at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from helix_kit.quantized import group_size

if TYPE_CHECKING:
    import torch

KINDS = ("int4", "int8", "fp8", "mxfp4")
"""Whole numbers of 4 or 8 bits without a sign, and floating-point numbers of 8 bits (E4M3) or 4 bits (E2M1)."""
_HALF_BYTES = ("int4", "mxfp4")
"""Kinds with two codes in a byte."""
_POSITIVE = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
E2M1 = (*_POSITIVE, *(math.copysign(value, -1) for value in _POSITIVE))
"""What each code of E2M1 stands for."""
EXPONENT_BIAS = 127
"""A scale of ``mxfp4`` is stored as its exponent of two, plus this."""
_E4M3_SHIFT = 2.0**120
"""Exponents of float32 are biased by 127, those of E4M3 by 7."""


@dataclass(frozen=True)
class LowBitWeight:
    """A matrix (outputs, inputs) as codes."""

    kind: str
    codes: torch.Tensor
    """uint8: (outputs, inputs), or (outputs, inputs / 2) of four bits."""
    scales: torch.Tensor
    """(outputs, groups), float32; exponents in uint8 for ``mxfp4``."""
    zeros: torch.Tensor | None
    """(outputs, groups), uint8; None for ``fp8`` and ``mxfp4``, whose codes have a sign."""

    @property
    def shape(self) -> tuple[int, int]:
        """Outputs and inputs."""
        outputs, width = self.codes.shape
        return outputs, 2 * width if self.kind in _HALF_BYTES else width

    @property
    def group(self) -> int:
        """Inputs that share a scale."""
        return self.shape[1] // self.scales.shape[1]

    @property
    def num_bytes(self) -> int:
        """Bytes in memory."""
        parts = [self.codes, self.scales] + ([] if self.zeros is None else [self.zeros])
        return sum(part.numel() * part.itemsize for part in parts)

    def to(self, device: torch.device) -> LowBitWeight:
        """The same matrix on a device."""
        zeros = None if self.zeros is None else self.zeros.to(device)
        return LowBitWeight(self.kind, self.codes.to(device), self.scales.to(device), zeros)

    def expand(self, dtype: torch.dtype) -> torch.Tensor:
        """The weights (outputs, inputs) in `dtype`, each rounded once."""
        import torch

        (outputs, inputs), groups = self.shape, self.scales.shape[1]
        if self.kind == "fp8":
            bits = self.codes.int()
            # Sign, exponent and mantissa in the places that float32 has for them; small numbers come out right, too.
            values = (((bits & 0x80) << 24) | ((bits & 0x7F) << 20)).view(torch.float32)
            weights = (values * _E4M3_SHIFT).view(outputs, groups, -1) * self.scales[:, :, None]
            return weights.view(outputs, inputs).to(dtype)
        if self.kind == "mxfp4":
            codes = self.codes.view(outputs, groups, -1)
            values = torch.tensor(E2M1, device=codes.device)[torch.cat([codes & 0x0F, codes >> 4], dim=-1).int()]
            exponents = self.scales[:, :, None].int() - EXPONENT_BIAS
            return torch.ldexp(values, exponents).view(outputs, inputs).to(dtype)
        assert self.zeros is not None
        if self.kind == "int4":
            codes = self.codes.view(outputs, groups, -1)
            weights = codes.new_empty((outputs, groups, 2, inputs // groups // 2), dtype=dtype)
            weights[:, :, 0] = codes & 0x0F
            weights[:, :, 1] = codes >> 4
        else:
            weights = self.codes.to(dtype)
        # Codes less zeros are exact in every dtype; the product is rounded once, because scales are in float32.
        return weights.view(outputs, groups, -1).sub_(self.zeros[:, :, None]).mul_(self.scales[:, :, None]).view(
            outputs, inputs
        )  # fmt: skip


def pack(codes: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor, bits: int) -> LowBitWeight:
    """A kept matrix from a code for each weight.

    Parameters
    ----------
    codes
        (outputs, inputs), whole numbers from 0 to ``2**bits - 1``.
    scales, zeros
        (outputs, groups).
    bits
        4 or 8.

    Returns
    -------
    LowBitWeight
        Of ``int4`` or ``int8``.

    Examples
    --------
    >>> import torch
    >>> codes = torch.tensor([[0, 1, 8, 15]])
    >>> kept = pack(codes, torch.tensor([[0.5, 2.0]]), torch.tensor([[1, 8]]), 4)
    >>> kept.shape, kept.group, kept.num_bytes, kept.expand(torch.float32).tolist()
    ((1, 4), 2, 12, [[-0.5, 0.0, 0.0, 14.0]])
    """
    import torch

    codes = codes.to(torch.uint8)
    if bits == 4:
        halves = codes.reshape(len(codes), scales.shape[1], 2, -1)
        codes = (halves[:, :, 0] | (halves[:, :, 1] << 4)).flatten(1)
    return LowBitWeight(f"int{bits}", codes.contiguous(), scales.float().contiguous(), zeros.to(torch.uint8))


def join(parts: Sequence[LowBitWeight]) -> LowBitWeight | None:
    """The outputs of several matrices of the same inputs in one; None where kinds or groups differ."""
    import torch

    first = parts[0]
    if any((part.kind, part.group, part.shape[1]) != (first.kind, first.group, first.shape[1]) for part in parts):
        return None
    zeros = None if first.zeros is None else torch.cat([part.zeros for part in parts if part.zeros is not None])
    codes, scales = (torch.cat([getattr(part, name) for part in parts]) for name in ("codes", "scales"))
    return LowBitWeight(first.kind, codes, scales, zeros)


def quantize(weight: torch.Tensor, kind: str) -> LowBitWeight:
    """Round a matrix to codes, group by group, between its least and its largest weight.

    Parameters
    ----------
    weight
        (outputs, inputs).
    kind
        ``int4`` or ``int8``.

    Returns
    -------
    LowBitWeight
        On the same device.

    Raises
    ------
    InputError
        When no group of 128, 64 or 32 inputs divides the inputs.

    Examples
    --------
    >>> import torch
    >>> kept = quantize(torch.linspace(-1.0, 2.0, 64).view(2, 32), "int4")
    >>> kept.group, float((kept.expand(torch.float32) - torch.linspace(-1.0, 2.0, 64).view(2, 32)).abs().max()) < 0.07
    (32, True)
    """
    import torch

    outputs, inputs = weight.shape
    group = group_size(kind, [inputs])
    largest = 15 if kind == "int4" else 255
    grouped = weight.float().view(outputs, inputs // group, group)
    low, high = grouped.amin(-1).clamp(max=0), grouped.amax(-1).clamp(min=0)
    scales = ((high - low) / largest).clamp(min=torch.finfo(torch.float32).tiny)
    zeros = (-low / scales).round().clamp(0, largest)
    codes = (grouped / scales[:, :, None]).round() + zeros[:, :, None]
    return pack(codes.clamp(0, largest).view(outputs, inputs), scales, zeros, 4 if kind == "int4" else 8)
