"""Layers are joined from the tensors of a checkpoint, all of which must be used."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from helix_kit.runtime.worker.fused_layers import Linear, can_fuse, fused_layer  # noqa: E402

NAMES = (
    *("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
    *("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
)


def tensors() -> dict[str, torch.Tensor]:
    """Matrices (2, 3) filled with 0, 1, 2 ... and norms."""
    found = {f"{name}.weight": torch.full((2, 3), float(i)) for i, name in enumerate(NAMES)}
    return found | {f"{name}_layernorm.weight": torch.ones(3) for name in ("input", "post_attention")}


def layer_of(**more: torch.Tensor):
    return fused_layer(4, {**tensors(), **more}, SimpleNamespace(), 1e-6)


def test_query_key_and_value_are_one_product_and_so_are_gate_and_up():
    layer = layer_of()
    assert layer.qkv.weight[:, 0].tolist() == [0, 0, 1, 1, 2, 2] and layer.qkv.bias is None
    assert layer.gate_up.weight[:, 0].tolist() == [4, 4, 5, 5]
    assert layer.qkv.of(torch.tensor([1.0, 2.0, 3.0])).tolist() == [0, 0, 6, 6, 12, 12]


def test_a_part_without_bias_has_zeros_beside_one_with_it():
    layer = layer_of(**{"self_attn.k_proj.bias": torch.tensor([7.0, 8.0])})
    assert layer.qkv.bias.tolist() == [0, 0, 7, 8, 0, 0]


def test_matrices_that_a_checkpoint_has_joined_are_taken_as_they_are():
    given = {k: v for k, v in tensors().items() if "gate" not in k and "up_proj" not in k}
    joined = fused_layer(0, {**given, "mlp.gate_up_proj.weight": torch.ones(4, 3)}, SimpleNamespace(), 1e-6)
    assert joined.gate_up == Linear(joined.gate_up.weight, None) and joined.gate_up.weight.shape == (4, 3)


def test_norms_of_heads_come_in_pairs():
    assert layer_of().head_norms is None
    both = {f"self_attn.{name}_norm.weight": torch.full((3,), value) for name, value in (("q", 1.0), ("k", 2.0))}
    assert [norm[0].item() for norm in layer_of(**both).head_norms] == [1.0, 2.0]


def test_a_tensor_that_no_part_uses_is_named():
    with pytest.raises(ValueError, match=r"layer 4 .*self_attn.sinks"):
        layer_of(**{"self_attn.sinks": torch.ones(3)})


@pytest.mark.parametrize(
    ("family", "activation", "fits"), [("llama", "silu", True), ("qwen3", "swish", True), ("llama", "gelu", False),
                                       ("olmo2", "silu", False)],
)  # fmt: skip
def test_only_layers_of_the_form_are_fused(family, activation, fits):
    assert can_fuse(SimpleNamespace(model_type=family, hidden_act=activation)) is fits
