"""Which of a layer's matrices are quantised, and how those of its experts are put together."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from low_bit_checkpoints import CONFIGS  # noqa: E402

from helix_kit.errors import InputError  # noqa: E402
from helix_kit.runtime.weights.families import ExpertNames  # noqa: E402
from helix_kit.runtime.weights.low_bit import LowBitWeight, quantize  # noqa: E402
from helix_kit.runtime.weights.low_bit_files import LowBitFormat, low_bit_format  # noqa: E402
from helix_kit.runtime.weights.low_bit_layers import join_low_bit_experts, round_layer, stored_tensors  # noqa: E402

NAMES = ExpertNames(block="moe", gate="w1", up="w3", down="w2")


def gptq() -> LowBitFormat:
    form = low_bit_format({"model_type": "llama", "quantization_config": CONFIGS["gptq"]}, "config.json")
    assert form is not None
    return form


def test_only_matrices_that_are_stored_so_are_replaced() -> None:
    expected = {"model.layers.0.mlp.up_proj.weight": (64, 32), "model.layers.0.mlp.down_proj.weight": (32, 64)}
    found = {"model.layers.0.mlp.up_proj.qweight", "model.layers.0.mlp.down_proj.weight"}
    assert {name: tensor.shape for name, tensor in stored_tensors(expected, found, gptq(), "a folder").items()} == {
        "model.layers.0.mlp.up_proj.qweight": (4, 64),
        "model.layers.0.mlp.up_proj.qzeros": (1, 8),
        "model.layers.0.mlp.up_proj.scales": (1, 64),
    }


@pytest.mark.parametrize("name", ["model.layers.0.mlp.gate", "model.layers.0.input_layernorm", "lm_head"])
def test_a_router_a_norm_or_the_head_in_few_bits_is_refused(name: str) -> None:
    expected = {"model.layers.0.input_layernorm.weight": (64,), "lm_head.weight": (256, 64)}
    with pytest.raises(InputError, match=f"{name}.weight' is quantised"):
        stored_tensors(expected, {f"{name}.qweight"}, gptq(), "a folder")


def experts(count: int, **kinds: str) -> dict[str, LowBitWeight]:
    """Matrices of experts; `kinds` are exceptions, by the matrix of the last one."""
    shapes = {"w1": (16, 32), "w3": (16, 32), "w2": (32, 32)}
    return {
        f"moe.experts.{index}.{name}.weight": quantize(
            torch.randn(shape, generator=torch.Generator().manual_seed(3 * index + place)),
            kinds.get(name, "int4") if index + 1 == count else "int4",
        )
        for index in range(count)
        for place, (name, shape) in enumerate(shapes.items())
    }


def test_experts_are_joined_in_their_order() -> None:
    matrices: dict[str, Any] = {**experts(11), "moe.shared.up_proj.weight": quantize(torch.ones(8, 32), "int4")}
    layer = join_low_bit_experts(matrices, NAMES, "a folder")
    assert set(layer) == {"mlp.experts.gate_up_proj", "mlp.experts.down_proj", "mlp.shared.up_proj.weight"}
    tenth = [matrices[f"moe.experts.10.{name}.weight"].expand(torch.float32) for name in ("w1", "w3", "w2")]
    assert torch.equal(layer["mlp.experts.gate_up_proj"][10].expand(torch.float32), torch.cat(tenth[:2]))
    assert torch.equal(layer["mlp.experts.down_proj"][10].expand(torch.float32), tenth[2])


def test_experts_of_two_kinds_are_refused() -> None:
    with pytest.raises(InputError, match="expert 1 is not quantised as a whole"):
        join_low_bit_experts(experts(2, w3="int8"), NAMES, "a folder")
    without = {name: matrix for name, matrix in experts(2).items() if "experts.1.w2" not in name}
    with pytest.raises(InputError, match="not quantised as a whole"):
        join_low_bit_experts(without, NAMES, "a folder")


def test_norms_biases_and_routers_are_not_rounded() -> None:
    tensors = {
        "input_layernorm.weight": torch.ones(32),
        "self_attn.q_proj.weight": torch.ones(32, 32),
        "self_attn.q_proj.bias": torch.ones(32),
        "mlp.gate.weight": torch.ones(4, 32),
        "mlp.experts.down_proj": torch.ones(4, 32, 32),
    }
    layer = round_layer(tensors, "int8")
    assert isinstance(layer["self_attn.q_proj.weight"], LowBitWeight)
    assert [kept.kind for kept in layer["mlp.experts.down_proj"]] == ["int8"] * 4
    rounded = {"self_attn.q_proj.weight", "mlp.experts.down_proj"}
    assert all(layer[name] is tensors[name] for name in tensors if name not in rounded)
