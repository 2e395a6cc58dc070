"""Weights in mxfp4 become the numbers that transformers expands them to."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from transformers.integrations.mxfp4 import convert_moe_packed_tensors  # noqa: E402

from helix_kit.runtime.weights import mxfp4  # noqa: E402


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_all_codes_in_more_experts_than_are_expanded_at_once(dtype: str) -> None:
    generator = torch.Generator().manual_seed(0)
    blocks = torch.randint(0, 256, (10, 12, 3, 16), dtype=torch.uint8, generator=generator)
    scales = torch.randint(100, 140, (10, 12, 3), dtype=torch.uint8, generator=generator)
    found = mxfp4.expand(blocks, scales, getattr(torch, dtype))
    assert found.shape == (10, 96, 12)
    theirs = convert_moe_packed_tensors(blocks, scales, dtype=getattr(torch, dtype))
    assert torch.equal(found, theirs)
    kept = mxfp4.kept(blocks, scales)
    assert torch.equal(torch.stack([matrix.expand(getattr(torch, dtype)).t() for matrix in kept]), theirs)
    assert {(matrix.shape, matrix.group, matrix.num_bytes) for matrix in kept} == {((12, 96), 32, 12 * 96 * 17 // 32)}
