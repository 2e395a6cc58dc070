"""Experts, latent and linear attention: layers count as transformers' own on the meta device, each by itself."""

from __future__ import annotations

import json

import pytest

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
    "glm4_moe": [
        ROUTED | HEAD | {"n_shared_experts": 1}, ROUTED | HEAD | {"use_qk_norm": True, "attention_bias": True},
    ],
    "glm4_moe_lite": [ROUTED | LATENT | {"n_shared_experts": 1}],
    "gpt_oss": [LOCAL | HEAD, LOCAL | HEAD | {"attention_bias": False}],
    "granitemoe": [LOCAL, LOCAL | {"attention_bias": True}],
    "granitemoeshared": [LOCAL | {"shared_intermediate_size": 40}, LOCAL | {"shared_intermediate_size": 0}],
    "llama4_text": [
        LOCAL | HEAD | {"intermediate_size_mlp": 200, "interleave_moe_layer_step": 2},
        LOCAL | HEAD | {"intermediate_size_mlp": 200, "interleave_moe_layer_step": 1, "attention_bias": True},
    ],
    "minimax_m2": [LOCAL | HEAD | {"rotary_dim": 8}],
    "mixtral": [LOCAL, LOCAL | HEAD],
    "olmoe": [EXPERTS],
    "phimoe": [LOCAL, LOCAL | {"attention_bias": True}],
    "qwen2_moe": [EXPERTS | SHARED, EXPERTS | SHARED | {"qkv_bias": False, "decoder_sparse_step": 2}],
    "qwen3_moe": [EXPERTS | HEAD, EXPERTS | HEAD | {"mlp_only_layers": [0, 3], "attention_bias": True}],
    "qwen3_next": [EXPERTS | SHARED | LINEAR | {"head_dim": 16}],
    "qwen3_5_moe_text": [EXPERTS | SHARED | LINEAR | {"head_dim": 16}],
    "qwen3_5_text": [LINEAR | {"head_dim": 16}],
}  # fmt: skip
VARIANTS = [(family, index) for family, cases in CASES.items() for index in range(len(cases))]


def test_every_family_has_a_case():
    assert set(CASES) == set(EXPERT_FAMILIES)


@pytest.mark.parametrize(("family", "case"), VARIANTS)
def test_each_layer_counts_as_in_transformers(family, case, tmp_path):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(family, **{**BASE, **CASES[family][case]})
    with torch.device("meta"):
        real = AutoModelForCausalLM.from_config(config)
    layers = next(
        m for m in real.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == config.num_hidden_layers
    )
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
        experts = {n: p for n, p in layer.named_parameters() if ".experts." in n}
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
