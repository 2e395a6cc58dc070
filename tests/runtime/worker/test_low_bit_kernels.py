"""numba's kernels beside the expanded matrix, for parts of the outputs, and the table of E4M3."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from helix_kit.runtime.weights.low_bit import LowBitWeight, quantize  # noqa: E402
from helix_kit.runtime.worker import low_bit_kernels as kernels  # noqa: E402


def test_the_table_is_that_of_torch() -> None:
    numbers = np.arange(256)[np.arange(256) & 0x7F != 0x7F]
    theirs = torch.arange(256, dtype=torch.int32).to(torch.uint8).view(torch.float8_e4m3fn).float().numpy()
    np.testing.assert_array_equal(kernels.E4M3[numbers], theirs[numbers])


def test_every_number_of_four_bits() -> None:
    """E2M1 as in the specification: a sign, two bits of exponent and one of mantissa."""
    for code in range(16):
        exponent, mantissa = (code >> 1) & 3, code & 1
        value = mantissa / 2 if exponent == 0 else (1 + mantissa / 2) * 2.0 ** (exponent - 1)
        assert kernels._e2m1(np.uint8(code)) == (-value if code >> 3 else value)


def small_numbers() -> LowBitWeight:
    codes = torch.arange(12 * 32).to(torch.uint8).view(12, 32)
    return LowBitWeight("mxfp4", codes, torch.arange(110, 134, dtype=torch.uint8).view(12, 2), None)


@pytest.mark.parametrize("kind", ["int4", "int8", "mxfp4"])
def test_a_part_of_the_outputs(kind: str) -> None:
    weight = torch.randn(12, 64, generator=torch.Generator().manual_seed(0))
    kept = small_numbers() if kind == "mxfp4" else quantize(weight, kind)
    zeros = kept.codes if kept.zeros is None else kept.zeros
    number, matrix = kernels.KINDS[kind], (kept.codes.numpy(), kept.scales.numpy(), zeros.numpy(), kernels.E4M3)
    expected = kept.expand(torch.float32).numpy()
    weights = np.full((12, 64), np.nan, np.float32)
    kernels.expand(number, matrix, weights, 3, 9)
    np.testing.assert_allclose(weights[3:9], expected[3:9], rtol=1e-5, atol=1e-6)
    bits = np.zeros((12, 64), np.uint16)
    kernels.expand_to_bfloat16(number, matrix, bits, 3, 9)
    halves = torch.from_numpy(bits).view(torch.bfloat16)
    assert torch.equal(halves[3:9], torch.from_numpy(weights[3:9]).bfloat16()) and not halves[:3].any()
    x, result = np.ones((2, 64), np.float32), np.full((2, 12), np.nan, np.float32)
    kernels.multiply(number, x, matrix, result, 3, 9)
    np.testing.assert_allclose(result[:, 3:9], x @ expected[3:9].T, rtol=1e-4, atol=1e-5)
    for untouched in (weights[:3], weights[9:], result[:, :3], result[:, 9:]):
        assert np.isnan(untouched).all()
