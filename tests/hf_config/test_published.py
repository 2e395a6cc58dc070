"""config.json's as published: layers count as transformers' own, totals as on the models' cards, the rest by name."""

from __future__ import annotations

import json
from typing import Any

import pytest
from small_decoders import counted_layers

from helix_kit.errors import InputError
from helix_kit.hf_config import read_sizes
from helix_kit.model import Model


def decoder(kind: str, layers: int, hidden: int, heads: int, kv_heads: int, **others: Any) -> dict[str, Any]:
    """A config with the sizes that all have."""
    return {
        "model_type": kind, "num_hidden_layers": layers, "hidden_size": hidden, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "torch_dtype": "bfloat16", **others,
    }  # fmt: skip


LINEAR = {
    "linear_num_value_heads": 32, "linear_num_key_heads": 16, "linear_key_head_dim": 128,
    "linear_value_head_dim": 128, "linear_conv_kernel_dim": 4,
}  # fmt: skip
LATENT = {
    "kv_lora_rank": 512, "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
}  # fmt: skip
KIMI = decoder(
    "kimi_k2", 61, 7168, 64, 64, **LATENT, intermediate_size=18432, moe_intermediate_size=2048, n_routed_experts=384,
    n_shared_experts=1, num_experts_per_tok=8, first_k_dense_replace=1, moe_layer_freq=1, vocab_size=163840,
)  # fmt: skip
GLM = decoder(
    "glm4_moe", 46, 4096, 96, 8, head_dim=128, intermediate_size=10944, vocab_size=151552, n_routed_experts=128,
    num_experts_per_tok=8, moe_intermediate_size=1408, n_shared_experts=1, first_k_dense_replace=1, use_qk_norm=False,
    attention_bias=True, num_nextn_predict_layers=1,
)  # fmt: skip
SCOUT = decoder(
    "llama4_text", 48, 5120, 40, 8, head_dim=128, intermediate_size=8192, intermediate_size_mlp=16384,
    vocab_size=202048, num_local_experts=16, num_experts_per_tok=1, interleave_moe_layer_step=1, no_rope_layers=[],
    attention_chunk_size=8192, max_position_embeddings=10485760,
)  # fmt: skip
# Config, and the billions of parameters on the model's card (the decoder's, where it has a part for images).
READ: dict[str, tuple[dict[str, Any], float]] = {
    "Qwen3-Next-80B-A3B": (
        decoder(
            "qwen3_next", 48, 2048, 16, 2, head_dim=256, intermediate_size=5120, vocab_size=151936, num_experts=512,
            num_experts_per_tok=10, moe_intermediate_size=512, shared_expert_intermediate_size=512, **LINEAR,
            full_attention_interval=4, decoder_sparse_step=1, mlp_only_layers=[], max_position_embeddings=262144,
        ), 80,
    ),
    "Phi-4-mini": (
        decoder(
            "phi3", 32, 3072, 24, 8, intermediate_size=8192, vocab_size=200064, sliding_window=262144,
            max_position_embeddings=131072, partial_rotary_factor=0.75, tie_word_embeddings=True, pad_token_id=0,
        ), 3.84,
    ),
    "GLM-4.5-Air": (GLM, 106),
    "MiniMax-M2": (
        decoder(
            "minimax_m2", 62, 3072, 48, 8, head_dim=128, intermediate_size=1536, vocab_size=200064,
            num_local_experts=256, num_experts_per_tok=8, qk_norm_type="per_layer", attn_type_list=[1] * 62,
            use_mtp=True, num_mtp_modules=3, rotary_dim=64,
        ), 229,
    ),
    "Kimi-K2": (KIMI, 1026),
    "Llama-4-Scout": (SCOUT, 107.8),
    "Llama-4-Maverick": ({**SCOUT, "num_local_experts": 128, "interleave_moe_layer_step": 2}, 400),
    "ERNIE-4.5-21B-A3B": (
        decoder(
            "ernie4_5_moe", 28, 2560, 20, 4, head_dim=128, intermediate_size=12288, vocab_size=103424,
            moe_num_experts=64, moe_k=6, moe_intermediate_size=1536, moe_num_shared_experts=2,
            moe_layer_start_index=1, moe_layer_end_index=27, moe_layer_interval=1, use_bias=False,
            tie_word_embeddings=True, pad_token_id=0,
        ), 21.8,
    ),
    "Hunyuan-7B": (
        decoder(
            "hunyuan_v1_dense", 32, 4096, 32, 8, head_dim=128, intermediate_size=14336, vocab_size=128167,
            use_qk_norm=True, use_cla=False, cla_share_factor=2, pad_token_id=0, tie_word_embeddings=True,
        ), 7.5,
    ),
    "Mistral-Small-3.2": (
        decoder(
            "mistral", 40, 5120, 32, 8, head_dim=128, intermediate_size=32768, vocab_size=131072, sliding_window=None,
            max_position_embeddings=131072,
        ), 23.6,
    ),
    "Qwen3-VL-30B-A3B": (
        decoder(
            "qwen3_vl_moe_text", 48, 2048, 32, 4, head_dim=128, intermediate_size=6144, moe_intermediate_size=768,
            num_experts=128, num_experts_per_tok=8, decoder_sparse_step=1, vocab_size=151936, mlp_only_layers=[],
        ), 30.5,
    ),
    "Seed-OSS-36B": (
        decoder(
            "seed_oss", 64, 5120, 80, 8, head_dim=128, intermediate_size=27648, vocab_size=155136,
            attention_bias=True, attention_out_bias=False, mlp_bias=False,
        ), 36.2,
    ),
    "Minitron-4B": (
        decoder(
            "nemotron", 32, 3072, 24, 8, head_dim=128, intermediate_size=9216, vocab_size=256000, hidden_act="relu2",
            pad_token_id=0,
        ), 4.19,
    ),
    "OLMo-3-7B": (
        decoder(
            "olmo3", 32, 4096, 32, 32, intermediate_size=11008, vocab_size=100278, sliding_window=4096,
            layer_types=(["sliding_attention"] * 3 + ["full_attention"]) * 8, attention_bias=False, pad_token_id=0,
        ), 7.3,
    ),
    "Command-A": (
        decoder(
            "cohere2", 64, 12288, 96, 8, head_dim=128, intermediate_size=36864, vocab_size=256000,
            sliding_window=4096,
        ), 111,
    ),
}  # fmt: skip
CONV = ["conv", "conv", "full_attention"] * 5 + ["conv"]
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "Gemma-3n": (
        decoder(
            "gemma3n_text", 35, 2048, 8, 2, head_dim=256, intermediate_size=16384, vocab_size=262400,
            num_kv_shared_layers=15, hidden_size_per_layer_input=256, altup_num_inputs=4, laurel_rank=64,
        ), "unknown model family 'gemma3n_text'",
    ),
    "Kimi-Linear": (
        decoder("kimi_linear", 27, 2304, 32, 32, intermediate_size=9216, vocab_size=163840, num_experts=256),
        "num_experts = 256: experts of the family 'kimi_linear'",
    ),
    "MiniMax-M1": (
        decoder("minimax_m1", 80, 6144, 64, 8, num_local_experts=32, attn_type_list=([0] * 7 + [1]) * 10),
        "attn_type_list",
    ),
    "Hunyuan-A13B": (
        decoder("hunyuan_v1_moe", 32, 4096, 32, 8, num_experts=64, moe_topk=[8] * 32),
        "num_experts = 64: experts of the family 'hunyuan_v1_moe'",
    ),
    "Granite-4-H": (
        decoder("granitemoehybrid", 40, 1536, 12, 4, num_local_experts=64, layer_types=["mamba", "attention"] * 20),
        "num_local_experts = 64: experts of the family 'granitemoehybrid'",
    ),
    "Apertus": (decoder("apertus", 32, 4096, 32, 8, intermediate_size=21504), "unknown model family 'apertus'"),
    "Nemotron-H": (decoder("nemotron_h", 52, 4096, 32, 8, hybrid_override_pattern="M-M*"), "hybrid_override_pattern"),
    "Nemotron-Super": (
        decoder("nemotron-nas", 80, 8192, 64, 8, block_configs=[{"ffn": {"ffn_mult": 5.25}}] * 80),
        "unknown model family 'nemotron-nas'",
    ),
    "LFM2": (decoder("lfm2", 16, 2048, 32, 8, intermediate_size=12288, layer_types=CONV), r"layer_types = \['conv'\]"),
    "DeepSeek-V3.2": (
        {**KIMI, "model_type": "deepseek_v3", "index_topk": 2048}, "index_topk = 2048: not supported for deepseek_v3",
    ),
    "Falcon-H1": (decoder("falcon_h1", 24, 2048, 8, 2, mamba_d_state=128), "mamba_d_state = 128"),
    "heads by layer": (
        decoder("llama", 2, 64, 4, 2, intermediate_size=128, vocab_size=100) | {"num_key_value_heads": [3, 4]},
        r"num_key_value_heads = \[3, 4\]",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_published_models_count_as_in_transformers_and_on_their_cards(name: str) -> None:
    from transformers import AutoConfig

    config, billions = READ[name]
    model = Model(name=name, **read_sizes(json.loads(json.dumps(config)), "config.json"))
    fields = {field: value for field, value in config.items() if field not in ("model_type", "torch_dtype")}
    kind = {"kimi_k2": "deepseek_v3"}.get(config["model_type"], config["model_type"])  # transformers has no other
    counted = counted_layers(AutoConfig.for_model(kind, **fields))
    kinds = [model.kind_of(layer) for layer in range(model.num_layers)]
    assert [round(model.layer_params) if each is None else each.all_params for each in kinds] == counted
    tables = (2 - model.tied_embeddings) * model.vocab_size * model.hidden_size
    assert (sum(counted) + tables) / 1e9 == pytest.approx(billions, rel=0.015)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_described_is_refused_by_name(name: str) -> None:
    config, message = REFUSED[name]
    with pytest.raises(InputError, match=message):
        read_sizes(config, "config.json")


def test_exaones_letters_say_which_layers_have_windows() -> None:
    """As in LG AI's own code: a letter for each layer of a round, and the last layer sees all tokens."""
    sizes = decoder(
        "exaone4", 9, 640, 8, 4, head_dim=80, intermediate_size=1024, vocab_size=102400, sliding_window=512,
    )  # fmt: skip
    for pattern, expected in (("LLLG", "LLLGLLLGG"), ("LG", "LGLGLGLGG"), ("LLG", "LLGLLGLLG")):
        model = Model(name="e", **read_sizes({**sizes, "sliding_window_pattern": pattern}, "config.json"))
        found = [model.kind_of(layer).attention for layer in range(9)]
        assert found == [{"L": "sliding", "G": "full"}[letter] for letter in expected]
    for pattern in ("", "LLX", "4"):
        with pytest.raises(InputError, match=f"sliding_window_pattern = '{pattern}': expected a number, or a round"):
            read_sizes({**sizes, "sliding_window_pattern": pattern}, "config.json")


def test_the_older_name_of_quantization_config_is_read(tmp_path) -> None:
    """compressed-tensors called it compression_config: such files were planned in 16 bits."""
    group = {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "int", "strategy": "channel"}}
    given = {"quant_method": "compressed-tensors", "format": "int-quantized", "config_groups": {"group_0": group}}
    sizes = decoder("llama", 2, 256, 4, 2, intermediate_size=512, vocab_size=1000)
    models = [Model(name="m", **read_sizes({**sizes, field: given}, "c"))
              for field in ("compression_config", "quantization_config")]  # fmt: skip
    assert models[0] == models[1] and models[0].bits_per_weight < 8.1


@pytest.mark.parametrize(
    ("file", "method"),
    [("quantize_config.json", "gptq"), ("quant_config.json", "awq"), ("hf_quant_config.json", "modelopt")],
)
def test_a_file_beside_config_json_that_names_few_bits_is_not_passed_over(file, method, tmp_path) -> None:
    sizes = decoder("llama", 2, 256, 4, 2, intermediate_size=512, vocab_size=1000)
    (tmp_path / "config.json").write_text(json.dumps(sizes))
    assert not Model.from_hf(tmp_path).is_quantised
    (tmp_path / file).write_text("{}")
    with pytest.raises(InputError, match=rf"{file}: describes quantised .* quant_method = '{method}'"):
        Model.from_hf(tmp_path)
    given = {"quant_method": "awq", "bits": 4, "group_size": 128}
    (tmp_path / "config.json").write_text(json.dumps({**sizes, "quantization_config": given}))
    assert Model.from_hf(tmp_path).is_quantised
