"""Weights that are written into oneDNN's layout give the product of the plain matrix; other layouts are not written."""

from __future__ import annotations

import threading

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from helix_kit.runtime.worker import onednn_block, pair_kernel  # noqa: E402
from helix_kit.runtime.worker.onednn_block import OneDnnBlock  # noqa: E402

has_layout = pytest.mark.skipif(OneDnnBlock.of(64, 64) is None, reason="oneDNN has another layout on this processor")


@has_layout
@pytest.mark.parametrize(("outputs", "inputs"), [(64, 64), (192, 96), (256, 1376)])
def test_a_written_block_multiplies_as_the_plain_matrix(outputs: int, inputs: int) -> None:
    block = OneDnnBlock.of(outputs, inputs)
    assert block is OneDnnBlock.of(outputs, inputs)
    # Small whole numbers: the products are exact, whatever the order of the sums.
    weights = torch.randint(-8, 9, (outputs, inputs), generator=torch.Generator().manual_seed(inputs)).bfloat16()
    for pair in range(inputs // 2):
        bits = weights[:, 2 * pair : 2 * pair + 2].contiguous().view(torch.int16).numpy().view(np.uint16)
        block.words[:, pair] = (bits[:, 0] | bits[:, 1].astype(np.uint32) << 16).reshape(-1, 64)
    rows = torch.randint(-2, 3, (5, inputs), generator=torch.Generator().manual_seed(1)).bfloat16()
    expected = rows.long() @ weights.long().T
    assert torch.equal(block.multiply(rows).float(), expected.float().bfloat16().float())


@has_layout
def test_each_thread_has_its_own_block() -> None:
    found: list[OneDnnBlock | None] = []
    other = threading.Thread(target=lambda: found.append(OneDnnBlock.of(64, 64)))
    other.start()
    other.join()
    assert found[0] is not OneDnnBlock.of(64, 64)


def test_another_layout_or_shape_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert OneDnnBlock._new(96, 64) is OneDnnBlock._new(64, 33) is None
    other = np.zeros((1, 32, 64), np.uint32)
    monkeypatch.setattr(onednn_block, "_words_of", lambda *_: other)
    assert OneDnnBlock._new(64, 64) is None
    monkeypatch.setattr(onednn_block, "pack", lambda _: None)
    assert OneDnnBlock._new(64, 64) is None


def test_pairs_are_expanded_to_the_nearest_bfloat16() -> None:
    """As torch rounds, for some of the blocks alone."""
    generator = torch.Generator().manual_seed(4)
    codes = torch.randint(0, 16, (3, 64, 64), generator=generator, dtype=torch.uint8)  # blocks, inputs, outputs
    table = torch.randn(2, 192, 2, generator=generator).bfloat16().float()
    packed = (codes[..., :32] | codes[..., 32:] << 4).contiguous()
    words = np.zeros((3, 32, 64), np.uint32)
    pair_kernel.expand_pairs(packed.numpy(), table.numpy(), words, 1, 3)
    scales, shifts = (table[..., part].double().repeat_interleave(32, dim=0) for part in (0, 1))
    numbers = codes.permute(1, 0, 2).reshape(64, 192).double()
    expected = ((numbers - 8) * scales + shifts).float().bfloat16().view(torch.int16).numpy().view(np.uint16)
    for part in (0, 1):
        found = (words >> np.uint32(16 * part)).astype(np.uint16).transpose(1, 0, 2).reshape(32, 192)
        np.testing.assert_array_equal(found[:, 64:], expected[part::2, 64:])
        assert not found[:, :64].any()
