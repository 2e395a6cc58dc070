"""Quantised weights: bytes by hand from the methods' own storage, and parts that stay as they are."""

from __future__ import annotations

import json
import re

import pytest

from helix_kit.errors import InputError
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
    "compressed, int4 with zero points": (
        {"quant_method": "compressed-tensors",
         "config_groups": {"a": {"targets": ["Linear"], "weights": {"num_bits": 4, "type": "int", "group_size": 32,
                                                                    "symmetric": False}}}},
        0.5 + 2.5 / 32, "fp16",
    ),
    "compressed, nvfp4": (
        {"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized",
         "config_groups": {"a": {"targets": ["Linear"], "weights": {"num_bits": 4, "type": "float", "group_size": 16},
                                 "input_activations": {"num_bits": 4, "type": "float"}}}},
        0.5 + 1 / 16, "fp16",
    ),
    "modelopt, by its algorithm": ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, 0.5 + 1 / 16, "fp16"),
    "modelopt, fp8": ({"quant_method": "modelopt", "quant_algo": "FP8", "ignore": ["lm_head"]}, 1.0, "fp8"),
    "auto-round": (
        {"quant_method": "auto-round", "bits": 4, "group_size": 128, "data_type": "int", "sym": True,
         "packing_format": "auto_round:auto_gptq"},
        0.5 + 2.5 / 128, "fp16",
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


WHOLE = {"quant_method": "awq", "bits": 4, "group_size": 128}
FOUR, EIGHT = 0.5 + 2.5 / 128, 1 + 3 / 128
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128}
KIMI_IGNORES = ["lm_head", "re:.*self_attn.*", "re:.*shared_experts.*", r"re:.*mlp\.(gate|up|gate_up|down)_proj.*"]
MIXED = {
    "single projections": (
        {**WHOLE, "modules_to_not_convert": ["model.layers.0.mlp.down_proj", "model.layers.1.self_attn.q_proj"]},
        [{"mlp.down_proj": 2.0}, {"self_attn.q_proj": 2.0}], FOUR,
    ),
    "gptq, other bits by module": (
        {**GPTQ, "dynamic": {"-:.*self_attn": {}, r"+:.*layers\.1\..*down_proj": {"bits": 8}}},
        [{"self_attn": 2.0}, {"self_attn": 2.0, "mlp.down_proj": EIGHT}], FOUR,
    ),
    "gptq, some modules alone": (
        {**GPTQ, "modules_in_block_to_quantize": [["mlp.up_proj", "mlp.gate_proj"], ["mlp.down_proj"]]},
        [{"mlp": FOUR}] * 2, 2.0,
    ),
    "auto-round, other bits by module": (
        {"quant_method": "auto-round", "bits": 4, "group_size": 128,
         "extra_config": {"model.layers.0.mlp.up_proj": {"bits": 16, "data_type": "float"},
                          "model.layers.1.mlp.up_proj": {"bits": 8}}},
        [{"mlp.up_proj": 2.0}, {"mlp.up_proj": EIGHT}], FOUR,
    ),
    "compressed, two groups": (
        {"quant_method": "compressed-tensors", "ignore": ["re:.*o_proj"],
         "config_groups": {"a": {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "float"}},
                           "b": {"targets": ["re:.*down_proj"], "weights": {"num_bits": 4, "group_size": 32}}}},
        [{"mlp.down_proj": 0.5 + 2 / 32, "self_attn.o_proj": 2.0}] * 2, 1.0,
    ),
    "compressed, named modules alone": (
        {"quant_method": "compressed-tensors",
         "config_groups": {"b": {"targets": ["re:.*mlp.*"], "weights": {"num_bits": 4, "group_size": 32}}}},
        [{"mlp": 0.5 + 2 / 32}] * 2, 2.0,
    ),
    "modules of a vision tower alone": (
        {**WHOLE, "modules_to_not_convert": ["visual.blocks.0.mlp", "vision_tower.encoder.layers.1.mlp", "attn.proj"]},
        [{}, {}], FOUR,
    ),
}  # fmt: skip
MATRICES = {
    "self_attn.q_proj": 256 * 256, "self_attn.k_proj": 256 * 128, "self_attn.v_proj": 256 * 128,
    "self_attn.o_proj": 256 * 256, "mlp.gate_proj": 256 * 512, "mlp.up_proj": 256 * 512, "mlp.down_proj": 256 * 512,
}  # fmt: skip


@pytest.mark.parametrize("case", MIXED)
def test_matrices_of_a_layer_are_stored_in_several_ways(case, tmp_path):
    given, layers, others = MIXED[case]
    model = read(tmp_path, **DENSE, quantization_config=given)
    for layer, sizes in enumerate(layers):
        expected = 2.0 * 2 * 256  # the norms
        for name, params in MATRICES.items():
            expected += params * next((size for part, size in sizes.items() if name.startswith(part)), others)
        assert model.kind_of(layer).all_bytes == pytest.approx(expected), layer


def test_kimi_k2_has_experts_of_four_bits_and_all_else_of_sixteen(tmp_path):
    """The lists that Kimi-K2-Thinking is published with."""
    model = read(
        tmp_path, model_type="kimi_k2", num_hidden_layers=3, hidden_size=64, num_attention_heads=4, kv_lora_rank=16,
        q_lora_rank=24, qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=16, intermediate_size=128,
        moe_intermediate_size=32, n_routed_experts=8, num_experts_per_tok=2, n_shared_experts=1, vocab_size=100,
        first_k_dense_replace=1,
        quantization_config={
            "quant_method": "compressed-tensors", "format": "pack-quantized", "ignore": KIMI_IGNORES,
            "config_groups": {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 4, "group_size": 32}}},
        },
    )  # fmt: skip
    dense, sparse = model.kind_of(0), model.kind_of(1)
    assert dense.experts is None and dense.weight_bytes == 2 * dense.params
    assert sparse.weight_bytes == 2 * sparse.params
    assert sparse.experts.weight_bytes == sparse.experts.params * (4 + 16 / 32) / 8


def test_mxfp4_is_of_experts_alone_without_a_list_too(tmp_path):
    sizes = {
        "model_type": "gpt_oss", "num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 32, "intermediate_size": 96, "vocab_size": 100, "num_local_experts": 4,
        "num_experts_per_tok": 2,
    }  # fmt: skip
    for kind in read(tmp_path, **sizes, quantization_config={"quant_method": "mxfp4"}).layer_kinds:
        assert kind.weight_bytes == 2 * kind.params
        assert kind.experts.weight_bytes < kind.experts.params


REFUSED = {
    "no groups": ({"quant_method": "compressed-tensors"}, "config_groups: expected groups of modules"),
    "a class of modules": (
        {"quant_method": "compressed-tensors",
         "config_groups": {"a": {"targets": ["Embedding"], "weights": {"num_bits": 8}}}},
        "config_groups.a.targets = ['Embedding']: expected Linear, or names of modules",
    ),
    "two groups of all modules": (
        {"quant_method": "compressed-tensors",
         "config_groups": {name: {"targets": ["Linear"], "weights": {"num_bits": 8}} for name in "ab"}},
        "config_groups = ['a', 'b']: expected one group of the target Linear",
    ),
    "sparse weights": (
        {"quant_method": "compressed-tensors", "sparsity_config": {"format": "sparse-24-bitmask"},
         "config_groups": {"a": {"targets": ["Linear"], "weights": {"num_bits": 8}}}},
        "sparsity_config.format = 'sparse-24-bitmask': expected dense",
    ),
    "six bits of a module": ({**GPTQ, "dynamic": {"mlp": {"bits": 6}}}, "quantization_config.bits = 6"),
    "modules without fields": ({**GPTQ, "dynamic": ["mlp"]}, "quantization_config.dynamic = ['mlp']"),
    "floats of auto-round": (
        {"quant_method": "auto-round", "bits": 4, "data_type": "nv_fp"}, "data_type = 'nv_fp': expected int",
    ),
    "another algorithm": ({"quant_method": "modelopt", "quant_algo": "W4A8"}, "quant_algo = 'W4A8'"),
    "no module's name": ({**WHOLE, "modules_to_not_convert": [3]}, "modules_to_not_convert = [3]"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_described_is_refused_by_field(case, tmp_path):
    given, expected = REFUSED[case]
    with pytest.raises(InputError) as caught:
        read(tmp_path, **DENSE, quantization_config=given)
    assert expected in str(caught.value)


FP8 = {"quant_method": "fp8", "weight_block_size": [128, 128]}
SCHEME = {"num_bits": 8, "type": "float", "strategy": "tensor", "dynamic": False, "symmetric": True}


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        (FP8 | {"kv_cache_scheme": SCHEME}, "kv_cache_scheme .* 8 bits"),
        (FP8 | {"kv_cache_scheme": "int8"}, "kv_cache_scheme .*'int8'"),
        (
            {"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_quant_algo": "FP8"},
            "kv_cache_quant_algo .*'FP8'",
        ),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_a_cache_of_few_bits_is_planned_in_16_and_said_once(given, asked, nested, tmp_path, caplog):
    config = {**DENSE, "quantization_config": given}
    whole = {"model_type": "some_vl", "text_config": config} if nested else config
    (tmp_path / "config.json").write_text(json.dumps(whole))
    models = [Model.from_hf(tmp_path) for _ in range(3)]
    (said,) = caplog.messages
    assert re.search(f"config.json: quantization_config.{asked}. Plans and our runtime keep it in the type", said)
    without = {name: value for name, value in given.items() if not name.startswith("kv_")}
    (tmp_path / "config.json").write_text(json.dumps({**config, "quantization_config": without}))
    assert Model.from_hf(tmp_path).kv_bytes_per_token_layer == models[0].kv_bytes_per_token_layer
    assert len(caplog.messages) == 1
