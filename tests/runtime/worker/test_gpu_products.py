"""Products of few bits on GPUs: arguments, layout and fallbacks with stand-ins of torch's kernels, and the real ones.

The stand-ins have the signatures of torch's operators, and put codes in an order of their own, so that the code must
find the order out. torch's own checks of the arguments are run too, on tensors without memory.
"""

from __future__ import annotations

import inspect
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402

from helix_kit.errors import InputError  # noqa: E402
from helix_kit.runtime.weights.low_bit import LowBitWeight, quantize  # noqa: E402
from helix_kit.runtime.worker import gpu_products  # noqa: E402
from helix_kit.runtime.worker.gpu_products import ExpandedProduct, GpuFp8, GpuInt4, gpu_product, why_not  # noqa: E402

CPU = torch.device("cpu")
gpu = pytest.mark.gpu
needs_card = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")


def order_of(inner: int) -> torch.Tensor:
    """A fixed order of the codes of a tile, such as a kernel may have."""
    return torch.randperm(8 * 16 * inner, generator=torch.Generator().manual_seed(inner))


class Aten:
    """Stand-ins for the operators of `torch.ops.aten`, computed from what PyTorch's documentation says of them."""

    def _convert_weight_to_int4pack(self: torch.Tensor, innerKTiles: int) -> torch.Tensor:
        assert self.dtype == torch.uint8 and self.is_contiguous()
        codes = torch.stack([self >> 4, self & 15], dim=-1).flatten(1)
        tiles = codes.view(len(codes) // 8, 8, -1, 16 * innerKTiles).transpose(1, 2).flatten(2)
        nibbles = tiles[..., order_of(innerKTiles)].long().unflatten(-1, (32, innerKTiles // 2, 8))
        words = (nibbles << torch.arange(0, 32, 4)).sum(-1)
        return (words - (words >> 31 << 32)).to(torch.int32)

    def _weight_int4pack_mm(
        self: torch.Tensor, mat2: torch.Tensor, qGroupSize: int, qScaleAndZeros: torch.Tensor
    ) -> torch.Tensor:
        assert self.dtype == qScaleAndZeros.dtype == torch.bfloat16 and self.is_contiguous()
        inner = 2 * mat2.shape[3]
        nibbles = (mat2.long()[..., None] >> torch.arange(0, 32, 4)) & 15
        tiles = torch.empty_like(nibbles.flatten(2))
        tiles[..., order_of(inner)] = nibbles.flatten(2)
        codes = tiles.unflatten(-1, (8, 16 * inner)).transpose(1, 2).flatten(2).flatten(0, 1)
        scales, zeros = qScaleAndZeros.double().repeat_interleave(qGroupSize, dim=0).permute(2, 1, 0)
        weights = ((codes - 8) * scales + zeros).bfloat16()
        return (self.double() @ weights.double().t()).bfloat16()


def scaled_mm(
    self: torch.Tensor,
    mat2: torch.Tensor,
    scale_a: torch.Tensor,
    scale_b: torch.Tensor,
    bias: Any = None,
    scale_result: Any = None,
    out_dtype: Any = None,
    use_fast_accum: bool = False,
) -> torch.Tensor:
    assert self.dtype == mat2.dtype == torch.float8_e4m3fn and mat2.t().is_contiguous()
    assert scale_a.shape == (len(self), 1) and scale_b.shape == (1, mat2.shape[1]) and out_dtype == torch.bfloat16
    return ((self.double() @ mat2.double()) * scale_a.double() * scale_b.double()).to(out_dtype)


def names(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)


@pytest.mark.parametrize(
    ("operator", "stand_in"),
    [
        (torch.ops.aten._convert_weight_to_int4pack, Aten._convert_weight_to_int4pack),
        (torch.ops.aten._weight_int4pack_mm, Aten._weight_int4pack_mm),
        (torch.ops.aten._scaled_mm, scaled_mm),
    ],
)
def test_the_stand_ins_take_what_torchs_operators_take(operator: Any, stand_in: Any) -> None:
    arguments = operator.default._schema.arguments
    assert [argument.name for argument in arguments] == names(stand_in)
    required = [p for p in inspect.signature(stand_in).parameters.values() if p.default is inspect.Parameter.empty]
    assert len([argument for argument in arguments if not argument.has_default_value()]) == len(required)


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch):
    """A card of compute capability 9.0, played by the CPU and the stand-ins."""
    for operator in ("_convert_weight_to_int4pack", "_weight_int4pack_mm"):
        monkeypatch.setattr(torch.ops.aten, operator, getattr(Aten, operator))
    monkeypatch.setattr(torch, "_scaled_mm", scaled_mm)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    clear()
    yield monkeypatch
    clear()


def clear() -> None:
    for kept in (gpu_products._places, gpu_products._failure, gpu_products._say):
        kept.cache_clear()


def int4(outputs: int = 64, inputs: int = 384) -> LowBitWeight:
    return quantize(torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(1)), "int4")


def fp8(outputs: int = 64, inputs: int = 384) -> LowBitWeight:
    codes = torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(1)).to(torch.float8_e4m3fn)
    return LowBitWeight("fp8", codes.view(torch.uint8), torch.linspace(0.5, 1.5, outputs).view(-1, 1), None)


def differs(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.double() - expected.double()).abs().max() / expected.double().abs().max())


@pytest.mark.parametrize("inputs", [64, 96, 128, 384])
@pytest.mark.parametrize("rows", [(1,), (2, 3), (32,), (33,), (2, 40)])
def test_four_bits_give_the_product_of_the_expanded_weights(inputs: int, rows: tuple[int, ...], card: Any) -> None:
    weight = int4(inputs=inputs)
    x = torch.randn(*rows, inputs, generator=torch.Generator().manual_seed(2)).bfloat16()
    product = gpu_product(weight, torch.bfloat16)
    assert isinstance(product, GpuInt4) and product.multiply(x).shape == (*rows, 64)
    assert differs(product.multiply(x), F.linear(x.double(), weight.expand(torch.float32).double())) < 0.01
    # Few rows and many take the same weights.
    every = torch.eye(inputs).bfloat16()
    few = torch.cat([product.multiply(part) for part in every.split(16)])
    assert torch.equal(few.t(), product.expand())
    assert product.num_bytes < weight.num_bytes


def test_eight_bits_round_each_row_to_e4m3(card: Any) -> None:
    card.setenv(gpu_products.FP8_PRODUCTS, "1")
    weight = fp8()
    x = (
        torch.randn(2, 5, 384, generator=torch.Generator().manual_seed(2)).bfloat16()
        * torch.logspace(-4, 4, 5)[:, None]
    )
    x = torch.cat([x, torch.zeros(1, 5, 384)]).bfloat16()  # a row of zeros has no scale
    product = gpu_product(weight, torch.bfloat16)
    assert isinstance(product, GpuFp8)
    found, expected = product.multiply(x), F.linear(x.double(), weight.expand(torch.float32).double())
    assert found.shape == expected.shape and not found[2].any()
    for row, wanted in zip(found[:2].flatten(0, 1), expected[:2].flatten(0, 1), strict=True):
        assert 0 < differs(row, wanted) < 0.03


REFUSED: list[tuple[str, Any, Any, str]] = [
    ("float16", int4, torch.float16, "the layers compute in float16, and the kernel in bfloat16"),
    ("an old card", int4, torch.bfloat16, "the kernel needs compute capability 8.0, and the card has 7.5"),
    ("outputs", lambda: int4(outputs=12), torch.bfloat16, "12 x 384 weights: expected multiples of 8 x 32"),
    ("int8", lambda: quantize(torch.ones(64, 64), "int8"), torch.bfloat16, "torch has no kernel for them"),
    ("fp8", fp8, torch.bfloat16, "HELIX_KIT_FP8_PRODUCTS is not 1"),
]


@pytest.mark.parametrize(("case", "make", "dtype", "reason"), REFUSED, ids=[row[0] for row in REFUSED])
def test_what_does_not_suit_is_expanded_and_said(case, make, dtype, reason, card: Any, caplog) -> None:
    if case == "an old card":
        card.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    weight = make()
    product = gpu_product(weight, dtype)
    gpu_product(weight, dtype)
    assert isinstance(product, ExpandedProduct)
    assert caplog.messages == [f"cpu: weights of kind {weight.kind} are expanded before each product: {reason}"]
    x = torch.ones(3, weight.shape[1], dtype=dtype)
    assert torch.equal(product.multiply(x), F.linear(x, weight.expand(dtype)))


def test_more_conditions_of_eight_bits(card: Any) -> None:
    card.setenv(gpu_products.FP8_PRODUCTS, "1")
    assert why_not(fp8(), torch.bfloat16, CPU) is None
    blocks = LowBitWeight("fp8", fp8().codes, torch.ones(64, 3), None)
    assert why_not(blocks, torch.bfloat16, CPU) == "scales of blocks: expected one for each output"
    assert "expected multiples of 16 x 16" in why_not(fp8(outputs=24), torch.bfloat16, CPU)
    card.setattr(torch.cuda, "get_device_capability", lambda device: (8, 9))
    assert why_not(fp8(), torch.bfloat16, CPU) == "the kernel needs compute capability 9.0, and the card has 8.9"
    card.setenv(gpu_products.FP8_PRODUCTS, "yes")
    with pytest.raises(InputError, match="HELIX_KIT_FP8_PRODUCTS: expected 0 or 1, not 'yes'"):
        why_not(fp8(), torch.bfloat16, CPU)


def test_a_group_that_the_kernel_does_not_know(card: Any) -> None:
    kept = int4(inputs=64)
    rows = LowBitWeight("int4", kept.codes.repeat(1, 8), torch.ones(64, 1), torch.ones(64, 1, dtype=torch.uint8))
    assert why_not(rows, torch.bfloat16, CPU) == "groups of 512 weights: expected 32, 64, 128, 256"


@pytest.mark.parametrize("kind", ["int4", "fp8"])
def test_a_kernel_that_fails_or_is_wrong_is_not_used(kind: str, card: Any) -> None:
    card.setenv(gpu_products.FP8_PRODUCTS, "1")
    place, name = (torch.ops.aten, "_weight_int4pack_mm") if kind == "int4" else (torch, "_scaled_mm")
    own, weight = getattr(place, name), int4() if kind == "int4" else fp8()
    card.setattr(place, name, lambda *args, **more: 1.25 * own(*args, **more))
    assert "differs from the expanded weights by 0.2" in why_not(weight, torch.bfloat16, CPU)
    gpu_products._failure.cache_clear()

    def fail(*args: Any, **more: Any) -> None:
        raise RuntimeError("no kernel image\nfor this device")

    card.setattr(place, name, fail)
    assert (
        why_not(weight, torch.bfloat16, CPU) == "torch's kernel fails (RuntimeError: no kernel image for this device)"
    )


def test_torchs_own_checks_accept_the_arguments() -> None:
    """On tensors of a CUDA device that have no memory."""
    clear()
    with FakeTensorMode(), torch.device("cuda"):
        for inputs, rows in ((384, 5), (96, 40)):
            codes = torch.empty(64, inputs // 2, dtype=torch.uint8)
            scales = torch.empty(64, inputs // 32)
            product = GpuInt4(LowBitWeight("int4", codes, scales, torch.empty(64, inputs // 32, dtype=torch.uint8)))
            found = product.multiply(torch.empty(rows, inputs, dtype=torch.bfloat16))
            assert found.shape == (rows, 64) and found.dtype == torch.bfloat16 and found.device.type == "cuda"
        eight = GpuFp8(LowBitWeight("fp8", torch.empty(64, 384, dtype=torch.uint8), torch.empty(64, 1), None))
        assert eight.multiply(torch.empty(2, 3, 384, dtype=torch.bfloat16)).shape == (2, 3, 64)
    clear()


@gpu
@needs_card
@pytest.mark.parametrize("rows", [1, 17, 32, 33, 200])
@pytest.mark.parametrize("kind", ["int4", "fp8"])
def test_the_cards_kernels(kind: str, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(gpu_products.FP8_PRODUCTS, "1")
    device = torch.device("cuda", 0)
    weight = (int4(512, 1408) if kind == "int4" else fp8(512, 1408)).to(device)
    reason = why_not(weight, torch.bfloat16, device)
    if reason is not None and "compute capability" in reason:
        pytest.skip(reason)
    assert reason is None
    x = torch.randn(rows, 1408, device=device).bfloat16()
    product = gpu_product(weight, torch.bfloat16)
    assert isinstance(product, GpuInt4 if kind == "int4" else GpuFp8)
    expected = F.linear(x.double(), weight.expand(torch.float32).double())
    assert differs(product.multiply(x), expected) < (0.01 if kind == "int4" else 0.06)
    if isinstance(product, GpuInt4):
        few = torch.cat([product.multiply(part) for part in torch.eye(1408, device=device).bfloat16().split(16)])
        assert torch.equal(few.t(), product.expand())


@gpu
@needs_card
@pytest.mark.parametrize("graphs", [True, False])
def test_layers_of_four_bits_on_a_card(graphs: bool, tmp_path: Any) -> None:
    """Hidden states in bfloat16 beside those of the CPU, with and without CUDA graphs."""
    from helix_kit.runtime.weights.checkpoint import Checkpoint
    from helix_kit.runtime.weights.tiny import tiny_checkpoint
    from helix_kit.runtime.worker.model_layers import ModelLayers, StepOptions

    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4, "num_hidden_layers": 2}
    folder = tiny_checkpoint(tmp_path / "tiny", num_key_value_heads=4, **sizes)
    layers = ModelLayers(
        Checkpoint(folder, "int4"), 0, 2, dtype="bfloat16", device="cuda:0", options=StepOptions(graphs=graphs)
    )
    assert "few bits torch's kernel for four bits" in layers.description
