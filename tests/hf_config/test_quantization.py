"""Quantised weights: bytes by hand from the methods' own storage, and parts that stay as they are."""

from __future__ import annotations

import json

import pytest

from helix_kit.model import Model

DENSE = {
    "model_type": "llama", "num_hidden_layers": 2, "hidden_size": 256, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 64, "intermediate_size": 512, "vocab_size": 100, "torch_dtype": "bfloat16",
}  # fmt: skip
ATTENTION, MLP, NORMS = 256 * 256 * 2 + 256 * 128 * 2, 3 * 256 * 512, 2 * 256
METHODS = {
    "awq": ({"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}, 0.5 + 2.5 / 128, "fp16"),
    "gptq, 8 bits": ({"quant_method": "gptq", "bits": 8, "group_size": 64}, 1 + 3 / 64, "fp16"),
    "gptq, whole rows": ({"quant_method": "gptq", "bits": 4, "group_size": -1}, 0.5, "fp16"),
    "fp8, blocks": ({"quant_method": "fp8", "weight_block_size": [128, 128]}, 1 + 4 / 16384, "fp8"),
    "fp8": ({"quant_method": "fp8"}, 1.0, "fp8"),
    "nf4": ({"quant_method": "bitsandbytes", "load_in_4bit": True}, 0.5 + 4 / 64, "fp16"),
    "nf4, scales of 8 bits": (
        {"load_in_4bit": True, "bnb_4bit_use_double_quant": True}, 0.5 + 1 / 64 + 4 / (64 * 256), "fp16",
    ),
    "int8": ({"quant_method": "bitsandbytes", "load_in_8bit": True}, 1.0, "int8"),
    "compressed, int4": (
        {"quant_method": "compressed-tensors", "ignore": ["lm_head"],
         "config_groups": {"a": {"targets": ["Linear"], "weights": {"num_bits": 4, "type": "int", "group_size": 128}}}},
        0.5 + 2 / 128, "fp16",
    ),
    "compressed, fp8": (
        {"quant_method": "compressed-tensors", "ignore": ["lm_head"],
         "config_groups": {"a": {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "float"},
                                 "input_activations": {"num_bits": 8, "type": "float"}}}},
        1.0, "fp8",
    ),
}  # fmt: skip


def read(tmp_path, **fields):
    (tmp_path / "config.json").write_text(json.dumps(fields))
    return Model.from_hf(tmp_path)


@pytest.mark.parametrize("method", METHODS)
def test_matrices_take_the_bytes_of_their_method(method, tmp_path):
    given, per_weight, arithmetic = METHODS[method]
    model = read(tmp_path, **DENSE, quantization_config=given)
    (kind,) = model.layer_kinds
    assert kind.weight_bytes == pytest.approx((ATTENTION + MLP) * per_weight + 2 * NORMS)
    assert kind.arithmetic == arithmetic and kind.all_params == ATTENTION + MLP + NORMS
    assert model.layers_params == 2 * (ATTENTION + MLP + NORMS) and model.kv_bytes_per_token_layer == 2 * 128 * 2


def test_listed_modules_stay_as_they_are(tmp_path):
    """The forms of published files: a part, one layer's part, a gate, a regular expression."""
    low = 0.5 + 2.5 / 128
    cases = {
        "self_attn": [(2.0, low)] * 2,
        "model.layers.1.mlp": [(low, low), (low, 2.0)],
        "model.layers.0.mlp.gate": [(low, low)] * 2,
        "re:.*self_attn.*": [(2.0, low)] * 2,
        "lm_head": [(low, low)] * 2,
        "model.layers.0": [(2.0, 2.0), (low, low)],
    }
    for name, per_layer in cases.items():
        model = read(
            tmp_path, **DENSE, quantization_config={"quant_method": "awq", "bits": 4, "modules_to_not_convert": [name]}
        )
        for layer, (attention, mlp) in enumerate(per_layer):
            expected = ATTENTION * attention + MLP * mlp + 2 * NORMS
            kind = model.kind_of(layer)
            mine = model.layer_gb * 1e9 if kind is None else kind.all_bytes
            assert mine == pytest.approx(expected), (name, layer)


def test_gpt_oss_has_experts_of_four_bits_and_attention_of_sixteen(tmp_path):
    excluded = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
    model = read(
        tmp_path, model_type="gpt_oss", num_hidden_layers=2, hidden_size=64, num_attention_heads=4,
        num_key_value_heads=2, head_dim=32, intermediate_size=96, vocab_size=100, num_local_experts=4,
        num_experts_per_tok=2, sliding_window=128,
        quantization_config={"quant_method": "mxfp4", "modules_to_not_convert": excluded},
    )  # fmt: skip
    matrices, biases = 3 * 64 * 96, 2 * 96 + 64
    for kind in model.layer_kinds:
        assert kind.experts.weight_bytes == matrices * (4 + 8 / 32) / 8 + 2 * biases
        assert kind.weight_bytes == 2 * kind.params
