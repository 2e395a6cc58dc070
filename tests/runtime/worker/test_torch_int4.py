"""Four-bit products by torch's kernel compute what the expanded weights compute, and are used where they are faster."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from low_bit_checkpoints import low_bit_checkpoint  # noqa: E402

from helix_kit.errors import InputError  # noqa: E402
from helix_kit.runtime.weights.checkpoint import Checkpoint  # noqa: E402
from helix_kit.runtime.weights.low_bit import quantize  # noqa: E402
from helix_kit.runtime.worker import layout_choice, low_bit_kernels, torch_int4  # noqa: E402
from helix_kit.runtime.worker.low_bit_linear import LowBitLinear  # noqa: E402
from helix_kit.runtime.worker.model_layers import ModelLayers  # noqa: E402
from helix_kit.runtime.worker.onednn_block import OneDnnBlock  # noqa: E402
from helix_kit.runtime.worker.torch_int4 import MANY_ROWS, TorchInt4, packed_block, rows_by_torch  # noqa: E402

needs_torchs = pytest.mark.skipif(packed_block() is None, reason="torch packs codes in another way here")


def weight(outputs: int = 192, inputs: int = 96):
    return quantize(torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(1)), "int4")


@pytest.fixture
def torch_threads():
    """Sets the number of torch's threads for one test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@needs_torchs
@pytest.mark.parametrize("onednn", [True, False])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_product_is_that_of_the_expanded_matrix(
    threads: int, onednn: bool, torch_threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float64 with the weights as they are: the error is that of bfloat16, however many rows there are."""
    if not onednn:
        monkeypatch.setattr(OneDnnBlock, "of", lambda *_: None)
    monkeypatch.setattr(torch_int4, "BLOCK_WEIGHTS", 128 * 96)  # the last part is smaller
    torch_threads(threads)
    kept, bias = weight(), torch.linspace(-1, 1, 192)
    layer = LowBitLinear(kept, bias.bfloat16(), torch.bfloat16)
    assert isinstance(layer.product, TorchInt4) and layer.product.many_rows == MANY_ROWS
    for shape in [(1,), (1, 5), (MANY_ROWS,), (MANY_ROWS + 1,), (3, MANY_ROWS), (5, MANY_ROWS + 1)]:
        x = torch.randn(*shape, 96, generator=torch.Generator().manual_seed(len(shape))).bfloat16()
        expected = torch.nn.functional.linear(x.double(), kept.expand(torch.float32).double(), bias.double())
        with torch.inference_mode():
            result = layer(x)
        assert result.dtype == torch.bfloat16 and result.shape == expected.shape
        plain = torch.nn.functional.linear(x, kept.expand(torch.bfloat16), bias.bfloat16())
        allowed = 3 * float((plain.double() - expected).abs().max())
        assert float((result.double() - expected).abs().max()) <= allowed


@needs_torchs
def test_no_other_copy_is_kept() -> None:
    layer = LowBitLinear(kept := weight(), None, torch.bfloat16)
    assert layer.product.num_bytes == 192 * 48 + 192 * 3 * 4 < kept.num_bytes
    kept_tensors = [part for part in vars(layer.product).values() if isinstance(part, torch.Tensor)]
    assert sum(part.nbytes for part in kept_tensors) == layer.product.num_bytes


@needs_torchs
def test_a_copy_beside_the_codes_multiplies_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the weights that are expanded otherwise, bit for bit, and so much more memory."""
    without = TorchInt4(weight(), many_rows=4)
    monkeypatch.setenv(torch_int4.COPIES, "1")
    kept = TorchInt4(weight(), many_rows=4)
    assert kept.num_bytes == without.num_bytes + 192 * 96 * 2
    every_input = torch.eye(96).bfloat16()
    assert torch.equal(kept.multiply(every_input), without.multiply(every_input))
    few = every_input[:4]
    assert torch.equal(kept.multiply(few), without.multiply(few))


def test_whether_copies_are_kept_is_0_or_1(monkeypatch: pytest.MonkeyPatch) -> None:
    for given, expected in ((None, False), ("", False), ("0", False), ("1", True)):
        monkeypatch.delenv(torch_int4.COPIES, raising=False)
        if given is not None:
            monkeypatch.setenv(torch_int4.COPIES, given)
        assert torch_int4.keeps_copies() is expected
    monkeypatch.setenv(torch_int4.COPIES, "yes")
    with pytest.raises(InputError, match=r"HELIX_KIT_INT4_COPIES: expected 0 or 1, not 'yes'"):
        torch_int4.keeps_copies()


def test_what_torchs_kernel_does_not_suit() -> None:
    assert rows_by_torch(weight(), torch.float32) is rows_by_torch(weight(), None) is None
    assert rows_by_torch(weight(outputs=40), torch.bfloat16) is None
    assert rows_by_torch(quantize(torch.ones(64, 64), "int8"), torch.bfloat16) is None


@pytest.mark.parametrize("block", torch_int4.BLOCKS)
def test_blocks_are_expanded_to_the_nearest_bfloat16(block: int) -> None:
    """As torch rounds, for both layouts, and for some of the blocks alone."""
    generator = torch.Generator().manual_seed(4)
    codes = torch.randint(0, 16, (3 * block, 64), generator=generator, dtype=torch.uint8)
    table = torch.randn(2, 3 * block, 2, generator=generator).bfloat16().float()
    packed = torch_int4._pack(codes, block).numpy().reshape(3, 64, block // 2)
    bits = np.zeros((64, 3 * block), np.uint16)
    low_bit_kernels.EXPAND_BLOCKS[block](packed, table.numpy(), bits, 1, 3)
    scales, shifts = (table[..., part].repeat_interleave(32, dim=0) for part in (0, 1))
    expected = ((codes.t().double() - 8) * scales.double() + shifts.double()).float().bfloat16()
    found = torch.from_numpy(bits).view(torch.bfloat16)
    assert torch.equal(found[:, block:], expected[:, block:]) and not found[:, :block].any()


@needs_torchs
def test_the_faster_kernel_is_chosen_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HELIX_KIT_CACHE", str(tmp_path))
    large = weight(512, 256)
    asked = []
    for measured in (8, None):
        monkeypatch.setattr(torch_int4, "measure", lambda *shape, rows=measured: asked.append(shape) or {"rows": rows})
        for how, expected in (("stored", None), ("shape", MANY_ROWS), ("measured", 8)):
            torch_int4._measured.cache_clear()
            monkeypatch.setenv(layout_choice.VARIABLE, how)
            assert rows_by_torch(large, torch.bfloat16) == expected  # the second time as stored
    assert asked == [(512, 256)]
    torch_int4._measured.cache_clear()
    assert rows_by_torch(weight(512, 320), torch.bfloat16) is None and len(asked) == 2
    torch_int4._measured.cache_clear()


@needs_torchs
def test_times_that_contradict_each_other_are_not_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HELIX_KIT_CACHE", str(tmp_path))
    monkeypatch.setenv(layout_choice.VARIABLE, "measured")
    monkeypatch.setattr(torch_int4, "measure", lambda *_shape: None)
    torch_int4._measured.cache_clear()
    assert rows_by_torch(weight(512, 256), torch.bfloat16) == MANY_ROWS
    assert not list((tmp_path / "cpu-layouts").iterdir())
    torch_int4._measured.cache_clear()


@needs_torchs
def test_the_kernel_is_chosen_by_the_times_of_all_numbers_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fake clock: each product takes the time that is written here, whatever the machine does meanwhile."""
    now_s = 0.0

    def takes(seconds):
        def product(rows: torch.Tensor) -> None:
            nonlocal now_s
            now_s += seconds(len(rows))

        return product

    monkeypatch.setattr(torch_int4.timed_choice, "clock_of_products", lambda: lambda: now_s)
    for ours, expected in ((lambda rows: 5e-3 * rows, 8), (lambda rows: 0.5e-3 * rows, None)):
        monkeypatch.setattr(TorchInt4, "_by_kernel", staticmethod(takes(lambda rows: 1e-3 * rows)))
        monkeypatch.setattr(TorchInt4, "multiply_many", staticmethod(takes(lambda rows: 10e-3)))
        monkeypatch.setattr(torch_int4.CpuProduct, "multiply", staticmethod(takes(ours)))
        assert torch_int4.measure(64, 64) == {"rows": expected}


@needs_torchs
def test_both_kernels_are_measured() -> None:
    found = torch_int4.measure(64, 64)
    assert found is None or found["rows"] in (None, 0, *torch_int4.ROW_COUNTS)


@needs_torchs
def test_layers_in_bfloat16_use_it(tmp_path: Path) -> None:
    settings = {"hidden_size": 128, "intermediate_size": 192, "num_hidden_layers": 1, "num_key_value_heads": 4}
    packed, plain = low_bit_checkpoint(tmp_path, "gptq", **settings)
    layers = ModelLayers(Checkpoint(packed), 0, 1, dtype="bfloat16")
    used = [module for module in layers._layers[0].modules() if isinstance(module, LowBitLinear)]
    assert len(used) == 7 and all(isinstance(module.product, TorchInt4) for module in used)
    matrix = ModelLayers(Checkpoint(plain), 0, 1)._layers[0].mlp.down_proj
    x = torch.randn(4, 192, generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.inference_mode():
        ours, theirs = layers._layers[0].mlp.down_proj(x), matrix(x.float())
    assert float((ours - theirs).abs().max() / theirs.abs().max()) < 0.02
