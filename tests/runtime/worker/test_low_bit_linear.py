"""Layers whose weights stay in few bits compute what the same layers with expanded weights compute."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from layer_chain import run_mixed  # noqa: E402
from low_bit_checkpoints import WIDTHS, low_bit_checkpoint  # noqa: E402

from helix_kit.errors import InputError  # noqa: E402
from helix_kit.runtime.weights.checkpoint import Checkpoint  # noqa: E402
from helix_kit.runtime.weights.low_bit import LowBitWeight, quantize  # noqa: E402
from helix_kit.runtime.weights.tiny import UNUSUAL, tiny_checkpoint  # noqa: E402
from helix_kit.runtime.worker import cpu_product, torch_kernels  # noqa: E402
from helix_kit.runtime.worker.cpu_product import FEW_ROWS, CpuProduct  # noqa: E402
from helix_kit.runtime.worker.low_bit_linear import LowBitExperts, LowBitLinear  # noqa: E402
from helix_kit.runtime.worker.model_layers import ModelLayers  # noqa: E402
from helix_kit.runtime.worker.static_step import StepOptions  # noqa: E402
from helix_kit.runtime.worker.step_kernels import StepKernels  # noqa: E402

RELATIVE = 1e-4
"""Of the largest logit: both sides compute in float32, with the same weights."""
CPU = torch.device("cpu")


def matrix(kind: str, outputs: int = 40, inputs: int = 96) -> LowBitWeight:
    weight = torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(1))
    if kind == "fp8":
        return LowBitWeight("fp8", weight.to(torch.float8_e4m3fn).view(torch.uint8), torch.rand(outputs, 3) + 0.5, None)
    if kind == "mxfp4":
        codes = torch.randint(0, 256, (outputs, inputs // 2), dtype=torch.uint8)
        return LowBitWeight("mxfp4", codes, torch.randint(120, 125, (outputs, 3), dtype=torch.uint8), None)
    return quantize(weight, kind)


@pytest.mark.parametrize("kind", ["int4", "int8", "fp8", "mxfp4"])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_product_is_that_of_the_expanded_matrix(kind: str, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(cpu_product, "BLOCK_WEIGHTS", 17 * 96)  # the last block is smaller
    kept, bias = matrix(kind), torch.linspace(-1, 1, 40)
    for shape in [(1,), (1, 5), (FEW_ROWS,), (3, FEW_ROWS)]:
        x = torch.randn(*shape, 96, generator=torch.Generator().manual_seed(len(shape)))
        expected = torch.nn.functional.linear(x.double(), kept.expand(torch.float32).double(), bias.double())
        with torch.inference_mode():
            torch.testing.assert_close(LowBitLinear(kept, bias)(x).double(), expected, rtol=1e-5, atol=1e-5)
            halves = LowBitLinear(kept, bias.bfloat16())(x.bfloat16())
        assert halves.dtype == torch.bfloat16
        assert float((halves.double() - expected).abs().max() / expected.abs().max()) < 0.02


def test_no_copy_of_the_matrix_is_kept() -> None:
    layer = LowBitLinear(kept := matrix("int4"), None)
    assert isinstance(layer.product, CpuProduct)
    assert layer.product._matrix[0].ctypes.data == kept.codes.data_ptr()
    assert not list(layer.parameters()) and not list(layer.buffers())


@pytest.mark.parametrize(
    ("family", "form"),
    [("llama", "gptq"), ("phi3", "packed"), ("qwen3_moe", "awq"), ("mixtral", "gptq"), ("qwen2_moe", "fp8")],
)
def test_logits_equal_those_of_transformers_with_expanded_weights(family: str, form: str, tmp_path: Path) -> None:
    packed, plain = low_bit_checkpoint(tmp_path, form, family)
    Checkpoint(packed).check_tensors()
    for ours, theirs in run_mixed(packed, plain):
        assert theirs.std() > 0.1
        assert float((ours - theirs).abs().max() / theirs.abs().max()) < RELATIVE


def layer_bytes(checkpoint: Checkpoint) -> int:
    """Bytes of the projections of one layer as they are held."""
    total = 0
    for name, held in checkpoint.read_layer(0, torch.bfloat16, CPU).items():
        for part in held if isinstance(held, tuple) else (held,):
            if isinstance(part, LowBitWeight):
                total += part.num_bytes
            elif part.dim() > 1 and "gate.weight" not in name:
                total += part.numel() * part.itemsize
    return total


def test_memory_is_that_of_few_bits(tmp_path: Path) -> None:
    """Groups of 32 weights: 5.25 bits for each of them, beside 16; groups of 128 take 4.31."""
    packed, plain = low_bit_checkpoint(tmp_path, "gptq", num_hidden_layers=1)
    assert layer_bytes(Checkpoint(packed)) / layer_bytes(Checkpoint(plain)) == pytest.approx(5.25 / 16)
    settings = {**UNUSUAL["qwen3_moe"], **WIDTHS["qwen3_moe"], "decoder_sparse_step": 1}
    moe = tiny_checkpoint(tmp_path / "moe", "qwen3_moe", **settings)
    held = Checkpoint(moe, "int8").read_layer(0, torch.bfloat16, CPU)["mlp.experts.gate_up_proj"]
    assert len(held) == 6 and held[0].shape == (128, 64)
    assert layer_bytes(Checkpoint(moe, "int8")) < 0.6 * layer_bytes(Checkpoint(moe))


@pytest.mark.parametrize("family", ["llama", "qwen3_moe"])
def test_weights_rounded_at_load(family: str, tmp_path: Path) -> None:
    """The layers are those of a checkpoint that holds the rounded weights."""
    settings = {**UNUSUAL.get(family, {}), **WIDTHS.get(family, {}), "num_hidden_layers": 2}
    checkpoint = Checkpoint(tiny_checkpoint(tmp_path, family, seed=3, **settings), "int4")
    layers = ModelLayers(checkpoint, 0, 2)
    plain = ModelLayers(Checkpoint(checkpoint.folder), 0, 2)
    kept = [module for layer in layers._layers for module in layer.modules() if isinstance(module, LowBitLinear)]
    experts = [module for layer in layers._layers for module in layer.modules() if isinstance(module, LowBitExperts)]
    assert len(kept) == (14 if family == "llama" else 4 * 2 + 3 + 2 * 6) and len(experts) == (family == "qwen3_moe")
    assert not any(isinstance(module, LowBitLinear) for layer in plain._layers for module in layer.modules())


def test_fused_layers_join_matrices_of_few_bits(tmp_path: Path) -> None:
    """As on a GPU, whose kernels are replaced by torch's: the layers beside those of transformers."""
    packed, _ = low_bit_checkpoint(tmp_path, "gptq", num_hidden_layers=2, attention_bias=True)
    checkpoint, results = Checkpoint(packed), []
    for options in (StepOptions(32), StepOptions(32, kernels=StepKernels(torch_kernels))):
        layers = ModelLayers(checkpoint, 0, 2, options=options)
        results.append(one_prompt(layers))
    assert isinstance(layers._fused[0].qkv, LowBitLinear)
    torch.testing.assert_close(*results, atol=1e-4, rtol=0)


def one_prompt(layers: ModelLayers) -> torch.Tensor:
    from helix_kit.runtime.worker.kv_cache import BlockTable
    from helix_kit.runtime.worker.model_layers import RequestRows

    pool, table = layers.new_pool(40), BlockTable(2)
    table.grow(pool, 20)
    hidden = torch.randn(20, layers.hidden_size, generator=torch.Generator().manual_seed(2))
    return layers.run(pool, [RequestRows(table, hidden, 0, 0, 2)])[0].clone()


def test_what_cannot_be_rounded_is_refused(tmp_path: Path) -> None:
    packed, _ = low_bit_checkpoint(tmp_path, "gptq", num_hidden_layers=1)
    with pytest.raises(InputError, match="quantize = 'int4': expected weights that are not quantised yet"):
        Checkpoint(packed, "int4")
    gpt_oss = tiny_checkpoint(tmp_path / "oss", "gpt_oss", **UNUSUAL["gpt_oss"], num_hidden_layers=1)
    with pytest.raises(InputError, match="gpt_oss"):
        Checkpoint(gpt_oss, "int4")
