"""Weights in mxfp4, as GPT-OSS stores its experts: kept in four bits, or expanded to the dtype of the computation.

32 weights share a scale, a power of two. Two weights of four bits lie in a byte, the first in the lower half. Four bits
are a sign, two bits of exponent and one of mantissa (E2M1).
Source: OCP Microscaling Formats (MX) Specification, version 1.0, sections 5.3.3 and 5.4.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from helix_kit.runtime.weights.low_bit import E2M1, EXPONENT_BIAS, LowBitWeight

if TYPE_CHECKING:
    import torch

BLOCKS, SCALES = "_blocks", "_scales"
"""Ends of the names of the two tensors in the place of one."""
GROUP = 32
"""Weights that share a scale."""
_EXPERTS_AT_ONCE = 8


def kept(blocks: torch.Tensor, scales: torch.Tensor) -> tuple[LowBitWeight, ...]:
    """The matrix of each expert in four bits.

    Parameters
    ----------
    blocks
        (experts, outputs, inputs / 32, 16), uint8.
    scales
        (experts, outputs, inputs / 32), uint8: exponents of two, plus 127.

    Returns
    -------
    tuple of LowBitWeight
        Each (outputs, inputs).

    Examples
    --------
    >>> import torch
    >>> blocks = torch.full((1, 1, 1, 16), 0x42, dtype=torch.uint8)        # weights 1 and 2, side by side
    >>> [matrix] = kept(blocks, torch.full((1, 1, 1), 128, dtype=torch.uint8))
    >>> matrix.shape, matrix.num_bytes, matrix.expand(torch.float32)[0, :4].tolist()
    ((1, 32), 17, [2.0, 4.0, 2.0, 4.0])
    """

    matrices = []
    for block, exponents in zip(blocks, scales, strict=True):
        halves = _codes(block).unflatten(-1, (2, GROUP // 2))
        packed = (halves[:, :, 0] | (halves[:, :, 1] << 4)).flatten(1)
        matrices.append(LowBitWeight("mxfp4", packed.contiguous(), exponents.contiguous(), None))
    return tuple(matrices)


def expand(blocks: torch.Tensor, scales: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The weights of all experts, with the inputs of a product first, as transformers' layer holds them.

    Parameters
    ----------
    blocks
        (experts, outputs, inputs / 32, 16), uint8.
    scales
        (experts, outputs, inputs / 32), uint8: exponents of two, plus 127.
    dtype
        Of the result.

    Returns
    -------
    torch.Tensor
        (experts, inputs, outputs).

    Examples
    --------
    >>> import torch
    >>> blocks = torch.full((1, 1, 1, 16), 0x42, dtype=torch.uint8)        # weights 1 and 2, side by side
    >>> expand(blocks, torch.full((1, 1, 1), 128, dtype=torch.uint8), torch.float32)[0, :4, 0].tolist()
    [2.0, 4.0, 2.0, 4.0]
    """
    import torch

    experts, outputs, groups, _ = blocks.shape
    values = torch.tensor(E2M1, dtype=dtype, device=blocks.device)
    expanded = torch.empty((experts, groups * GROUP, outputs), dtype=dtype, device=blocks.device)
    # A few at once: the indices of a lookup take many times the bytes of the weights.
    for first in range(0, experts, _EXPERTS_AT_ONCE):
        codes = _codes(blocks[first : first + _EXPERTS_AT_ONCE])
        exponents = scales[first : first + _EXPERTS_AT_ONCE].int() - EXPONENT_BIAS
        weights = torch.ldexp(values[codes.int()], exponents[..., None])
        expanded[first : first + _EXPERTS_AT_ONCE] = weights.flatten(-2).transpose(1, 2)
    return expanded


def _codes(blocks: torch.Tensor) -> torch.Tensor:
    """The four bits of each weight, in the order of the inputs: (..., 16) bytes become (..., 32)."""
    import torch

    return torch.stack([blocks & 0x0F, blocks >> 4], dim=-1).flatten(-2)
