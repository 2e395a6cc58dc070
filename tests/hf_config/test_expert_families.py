"""Experts, latent and linear attention: layers count as transformers' own on the meta device, each by itself."""

from __future__ import annotations

import json

import pytest
from small_decoders import layers_of

from helix_kit.errors import InputError
from helix_kit.hf_config import EXPERT_FAMILIES
from helix_kit.model import Model

BASE = {
    "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 160,
    "num_hidden_layers": 4, "vocab_size": 300, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip
HEAD = {"head_dim": 24}
EXPERTS = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
ROUTED = {"n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "first_k_dense_replace": 1}
LOCAL = {"num_local_experts": 6, "num_experts_per_tok": 2}
LATENT = {
    "kv_lora_rank": 20, "q_lora_rank": 28, "qk_nope_head_dim": 12, "qk_rope_head_dim": 4, "v_head_dim": 10,
    "n_group": 2, "topk_group": 1,
}  # fmt: skip
LINEAR = {
    "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 12,
}  # fmt: skip
# The fourth layer is the full one: heads of 40 and, where keys are values, one key-value head.
GEMMA4 = HEAD | {
    "hidden_size_per_layer_input": 0, "global_head_dim": 40, "num_global_key_value_heads": 1, "attention_k_eq_v": True,
    "layer_types": ["sliding_attention"] * 3 + ["full_attention"], "sliding_window": 16,
}  # fmt: skip
SHARED = {"shared_expert_intermediate_size": 40}
CASES = {
    "deepseek_v2": [ROUTED | LATENT | {"n_shared_experts": 2}, ROUTED | LATENT | {"q_lora_rank": None}],
    "deepseek_v3": [ROUTED | LATENT | {"n_shared_experts": 1}, ROUTED | LATENT | {"attention_bias": True}],
    "dots1": [ROUTED | HEAD | {"n_shared_experts": 2}, ROUTED | HEAD | {"attention_bias": True, "n_shared_experts": 1}],
    "ernie4_5_moe": [
        HEAD | {"moe_num_experts": 6, "moe_k": 2, "moe_intermediate_size": 24, "moe_num_shared_experts": 2},
        HEAD | {"moe_num_experts": 6, "moe_k": 2, "moe_intermediate_size": 24, "use_bias": True,
                "moe_layer_interval": 2, "moe_layer_start_index": 0},
    ],
    "exaone_moe": [EXPERTS | HEAD | {"num_shared_experts": 2, "first_k_dense_replace": 2, "sliding_window": 16}],
    "gemma4_text": [
        GEMMA4, GEMMA4 | {"attention_bias": True, "attention_k_eq_v": False},
        GEMMA4 | {"enable_moe_block": True, "num_experts": 6, "top_k_experts": 2, "moe_intermediate_size": 24},
    ],
    "glm4_moe": [
        ROUTED | HEAD | {"n_shared_experts": 1}, ROUTED | HEAD | {"use_qk_norm": True, "attention_bias": True},
    ],
    "glm4_moe_lite": [ROUTED | LATENT | {"n_shared_experts": 1}],
    "gpt_oss": [LOCAL | HEAD, LOCAL | HEAD | {"attention_bias": False}],
    "granitemoe": [LOCAL, LOCAL | {"attention_bias": True}],
    "granitemoeshared": [LOCAL | {"shared_intermediate_size": 40}, LOCAL | {"shared_intermediate_size": 0}],
    "hy_v3": [
        EXPERTS | HEAD | {"num_shared_experts": 1}, EXPERTS | HEAD | {"attention_bias": True, "mlp_bias": True},
    ],
    "llama4_text": [
        LOCAL | HEAD | {"intermediate_size_mlp": 200, "interleave_moe_layer_step": 2},
        LOCAL | HEAD | {"intermediate_size_mlp": 200, "interleave_moe_layer_step": 1, "attention_bias": True},
    ],
    "minimax_m2": [LOCAL | HEAD | {"rotary_dim": 8}],
    "mistral4": [ROUTED | LATENT | {"n_shared_experts": 1}],
    "mixtral": [LOCAL, LOCAL | HEAD],
    "olmoe": [EXPERTS],
    "phimoe": [LOCAL, LOCAL | {"attention_bias": True}],
    "qwen2_moe": [EXPERTS | SHARED, EXPERTS | SHARED | {"qkv_bias": False, "decoder_sparse_step": 2}],
    "qwen3_moe": [EXPERTS | HEAD, EXPERTS | HEAD | {"mlp_only_layers": [0, 3], "attention_bias": True}],
    "qwen3_next": [EXPERTS | SHARED | LINEAR | {"head_dim": 16}],
    "qwen3_5_moe_text": [EXPERTS | SHARED | LINEAR | {"head_dim": 16}],
    "solar_open": [ROUTED | HEAD, ROUTED | HEAD | {"attention_bias": True, "n_shared_experts": 2}],
    "qwen3_5_text": [LINEAR | {"head_dim": 16}],
}  # fmt: skip
VARIANTS = [(family, index) for family, cases in CASES.items() for index in range(len(cases))]


def test_every_family_has_a_case():
    assert set(CASES) == set(EXPERT_FAMILIES)


@pytest.mark.parametrize(("family", "case"), VARIANTS)
def test_each_layer_counts_as_in_transformers(family, case, tmp_path):
    from transformers import AutoConfig

    config = AutoConfig.for_model(family, **{**BASE, **CASES[family][case]})
    layers = layers_of(config)
    counts = [sum(p.numel() for p in layer.parameters()) for layer in layers]
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict(), default=str))
    model = Model.from_hf(tmp_path)
    mine = [model.kind_of(i) for i in range(4)]
    if not model.layer_kinds:
        assert [model.layer_params] * 4 == counts
        return
    assert [kind.all_params for kind in mine] == counts
    assert model.layers_params == sum(counts)
    bytes_per_weight = model.dtype_bytes
    assert model.layers_gb(1, 4) == pytest.approx(sum(counts[1:]) * bytes_per_weight / 1e9)
    for kind, layer in zip(mine, layers, strict=True):
        experts = {n: p for n, p in layer.named_parameters() if ".experts." in f".{n}"}
        total = sum(p.numel() for p in experts.values())
        assert total == (kind.experts.count * kind.experts.params if kind.experts else 0)


@pytest.mark.parametrize("family", ["deepseek_v3", "mixtral", "gpt_oss"])
def test_the_cache_of_a_token_has_the_size_of_what_transformers_keeps(family, tmp_path):
    """DeepSeek keeps the output of its down-projection, the others that of the key and value projections."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(family, **{**BASE, **CASES[family][0]})
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict(), default=str))
    with torch.device("meta"):
        attention = AutoModelForCausalLM.from_config(config).model.layers[0].self_attn
    if family == "deepseek_v3":
        width = attention.kv_a_proj_with_mqa.out_features
    else:
        width = attention.k_proj.out_features + attention.v_proj.out_features
    model = Model.from_hf(tmp_path)
    assert model.kind_of(0).kv_bytes_per_token == width * model.dtype_bytes


def test_gemma_4_is_read_from_its_authors_fields_and_from_transformers(tmp_path):
    """gemma-4-31b: full layers have 4 key-value heads of 512 without values of their own; others 16 of 256."""
    from transformers import AutoConfig

    sizes = {
        "hidden_size": 5376, "intermediate_size": 21504, "num_hidden_layers": 60, "num_attention_heads": 32,
        "num_key_value_heads": 16, "head_dim": 256, "global_head_dim": 512, "num_global_key_value_heads": 4,
        "attention_k_eq_v": True, "hidden_size_per_layer_input": 0, "vocab_size": 262144, "sliding_window": 1024,
        "use_bidirectional_attention": "vision",
    }  # fmt: skip
    models = []
    for fields in ({"model_type": "gemma4_text", **sizes}, AutoConfig.for_model("gemma4_text", **sizes).to_dict()):
        (tmp_path / "config.json").write_text(json.dumps(fields, default=str))
        models.append(Model.from_hf(tmp_path))
    assert models[0].layer_kinds == models[1].layer_kinds
    assert models[0].count_kinds(0, 60) == models[1].count_kinds(0, 60) == (50, 10)
    sliding, full = models[0].layer_kinds
    assert (sliding.kv_bytes_per_token, full.kv_bytes_per_token) == (2 * 16 * 256 * 2, 2 * 4 * 512 * 2)
    with_table = models[0].layers_params + 262144 * 5376
    assert with_table == pytest.approx(30.7e9, rel=0.01)  # the model's card says 30.7 B


def test_what_gemma_4_shares_between_layers_is_refused(tmp_path):
    fields = {"model_type": "gemma4_text", **BASE, **CASES["gemma4_text"][0]}
    for name, value in (("hidden_size_per_layer_input", 256), ("num_kv_shared_layers", 2)):
        (tmp_path / "config.json").write_text(json.dumps({**fields, name: value}))
        with pytest.raises(InputError, match=f"{name} = {value}: not supported for gemma4_text"):
            Model.from_hf(tmp_path)


def test_layers_of_their_own_sizes_are_refused_in_other_families(tmp_path):
    fields = {"model_type": "llama", **BASE, "per_layer_config": {"1": {"intermediate_size": 80}}}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    with pytest.raises(InputError, match="per_layer_config: layers with other fields"):
        Model.from_hf(tmp_path)
