"""Matrices that are kept in few bits: expanded, joined, and rounded from weights."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from helix_kit.errors import InputError  # noqa: E402
from helix_kit.runtime.weights.low_bit import LowBitWeight, join, quantize  # noqa: E402


def weights(outputs: int, inputs: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(seed)) + 0.3


@pytest.mark.parametrize(("kind", "levels"), [("int4", 15), ("int8", 255)])
@pytest.mark.parametrize(("inputs", "group"), [(256, 128), (192, 64), (96, 32)])
def test_rounding_is_to_the_nearest_level(kind: str, levels: int, inputs: int, group: int) -> None:
    given = weights(24, inputs)
    kept = quantize(given, kind)
    assert (kept.kind, kept.group, kept.shape) == (kind, group, (24, inputs))
    grouped = given.view(24, -1, group)
    steps = (grouped.amax(-1).clamp(min=0) - grouped.amin(-1).clamp(max=0)) / levels
    # Half a step, and another half where the zero was rounded.
    error = (kept.expand(torch.float32) - given).abs().view(24, -1, group)
    assert bool((error <= 1.001 * steps[..., None]).all())
    assert float((error <= 0.501 * steps[..., None]).float().mean()) > 0.9


def test_bytes_are_those_of_codes_and_scales() -> None:
    kept = quantize(weights(64, 256), "int4")
    assert kept.num_bytes == 64 * 128 + 64 * 2 * (4 + 1)
    assert quantize(weights(64, 256), "int8").num_bytes == 64 * 256 + 64 * 2 * (4 + 1)


def test_weights_that_are_all_alike() -> None:
    for value in (0.0, 0.5, -0.25):
        kept = quantize(torch.full((2, 32), value), "int4")
        torch.testing.assert_close(kept.expand(torch.float32), torch.full((2, 32), value))


def test_inputs_that_no_group_divides() -> None:
    with pytest.raises(InputError, match="multiple of 32"):
        quantize(weights(4, 40), "int4")


def test_every_code_of_fp8() -> None:
    codes = torch.tensor([code for code in range(256) if code & 0x7F != 0x7F], dtype=torch.uint8)[None]
    kept = LowBitWeight("fp8", codes, torch.tensor([[1.0]]), None)
    assert torch.equal(kept.expand(torch.float32), codes.view(torch.float8_e4m3fn).float())
    assert torch.equal(kept.expand(torch.bfloat16), codes.view(torch.float8_e4m3fn).bfloat16())


def test_outputs_are_joined_where_groups_are_the_same() -> None:
    parts = [quantize(weights(16, 64, seed), "int4") for seed in (1, 2)]
    joined = join(parts)
    assert joined is not None
    assert torch.equal(joined.expand(torch.float32), torch.cat([part.expand(torch.float32) for part in parts]))
    assert join([parts[0], quantize(weights(16, 64), "int8")]) is None
    assert join([parts[0], quantize(weights(16, 128), "int4")]) is None
