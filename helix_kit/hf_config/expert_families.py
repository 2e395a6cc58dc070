"""Families with experts, latent attention or linear attention, by ``model_type``."""

from __future__ import annotations

from collections.abc import Mapping

from helix_kit.hf_config.families import ExpertFields, Family, with_changes

_BIAS = Family(
    qkv_bias="attention_bias", out_bias="attention_bias", defaults=(("attention_bias", False),), kv_heads="required"
)
_DEEPSEEK = with_changes(
    _BIAS, kv_heads="optional", latent=True, refused=("index_topk",),
    experts=ExpertFields(
        count="n_routed_experts", shared="count", shared_field="n_shared_experts", layers="first_dense"
    ),
)  # fmt: skip
_QWEN = ExpertFields(layers="sparse_step")
_QWEN_SHARED = ExpertFields(
    shared="width", shared_field="shared_expert_intermediate_size", shared_gate=True, layers="sparse_step"
)
_LOCAL = ExpertFields(count="num_local_experts", width="intermediate_size")
_QWEN3_NEXT = with_changes(
    _BIAS, qk_norm="head", head_dim=256, gated_query=True, windows="linear", window_pattern=4, reads_layer_types=True,
    experts=_QWEN_SHARED,
)  # fmt: skip

EXPERT_FAMILIES: Mapping[str, Family] = {
    "deepseek_v2": with_changes(
        _DEEPSEEK, mlp_bias="mlp_bias", defaults=(("attention_bias", False), ("mlp_bias", False))
    ),
    "deepseek_v3": _DEEPSEEK,
    "dots1": with_changes(
        _BIAS, qk_norm="head", windows="late", reads_layer_types=True,
        experts=ExpertFields(
            count="n_routed_experts", shared="count", shared_field="n_shared_experts", layers="first_dense"
        ),
    ),
    "ernie4_5_moe": Family(
        qkv_bias="use_bias", out_bias="use_bias", mlp_bias="use_bias", defaults=(("use_bias", False),),
        kv_heads="required", tied=True,
        experts=ExpertFields(
            count="moe_num_experts", active="moe_k", shared="count", shared_field="moe_num_shared_experts",
            router_vectors=1, layers="ernie",
        ),
    ),
    "exaone_moe": Family(
        qk_norm="head", kv_heads="required", windows="pattern", window_pattern=4, reads_layer_types=True,
        experts=ExpertFields(shared="count", shared_field="num_shared_experts", layers="first_dense"),
    ),
    "gemma4_text": with_changes(
        _BIAS, norms=4, qk_norm="head", head_dim=256, tied=True, windows="pattern", window_pattern=6,
        reads_layer_types=True, last_is_full=True, keys_are_values="attention_k_eq_v",
        full_layers=(("head_dim", "global_head_dim"), ("num_key_value_heads", "num_global_key_value_heads")),
        defaults=(("attention_bias", False), ("attention_k_eq_v", False)),
        refused=("num_kv_shared_layers", "hidden_size_per_layer_input", "use_double_wide_mlp"),
        experts=ExpertFields(
            active="top_k_experts", shared="dense", router_vectors=1, router_scale=True, norms=3,
            switch="enable_moe_block",
        ),
    ),
    "glm4_moe": Family(
        qkv_bias="attention_bias", defaults=(("attention_bias", False), ("use_qk_norm", False)), qk_norm="head",
        qk_norm_if="use_qk_norm", kv_heads="required",
        experts=ExpertFields(
            count="n_routed_experts", shared="count", shared_field="n_shared_experts", layers="first_dense"
        ),
    ),
    "glm4_moe_lite": _DEEPSEEK,
    "gpt_oss": with_changes(
        _BIAS, defaults=(("attention_bias", True),), head_dim=64, heads_vector=True, windows="even",
        reads_layer_types=True,
        experts=ExpertFields(count="num_local_experts", width="intermediate_size", bias=True),
    ),
    "granitemoe": with_changes(_BIAS, kv_heads="optional", experts=_LOCAL),
    "granitemoeshared": with_changes(
        _BIAS, kv_heads="optional",
        experts=ExpertFields(
            count="num_local_experts", width="intermediate_size", shared="width",
            shared_field="shared_intermediate_size",
        ),
    ),
    "hy_v3": with_changes(
        _BIAS, qk_norm="head", head_dim=128, mlp_bias="mlp_bias",
        defaults=(("attention_bias", False), ("mlp_bias", False)),
        experts=ExpertFields(shared="count", shared_field="num_shared_experts", layers="first_dense"),
    ),
    "llama4_text": with_changes(
        _BIAS, head_dim=128, windows="chunks", reads_layer_types=True,
        experts=ExpertFields(
            count="num_local_experts", width="intermediate_size", shared="one", layers="interleave"
        ),
    ),
    "minimax_m2": Family(
        qk_norm="heads", kv_heads="required", head_dim=128, refused=("shared_intermediate_size",), experts=_LOCAL
    ),
    "mistral4": _DEEPSEEK,
    "mixtral": Family(kv_heads="required", windows="all", experts=_LOCAL),
    "olmoe": with_changes(_BIAS, kv_heads="optional", qk_norm="heads", experts=ExpertFields(width="intermediate_size")),
    "phimoe": with_changes(_BIAS, norm_params=2, windows="all", experts=_LOCAL),
    "qwen2_moe": Family(
        qkv_bias="qkv_bias", defaults=(("qkv_bias", True),), kv_heads="required", windows="even_early",
        window_switch=True, reads_layer_types=True, experts=_QWEN_SHARED,
    ),
    "qwen3_moe": with_changes(_BIAS, qk_norm="head", windows="all", window_switch=True, experts=_QWEN),
    "qwen3_next": _QWEN3_NEXT,
    "qwen3_5_moe_text": _QWEN3_NEXT,
    "qwen3_5_text": with_changes(_QWEN3_NEXT, experts=None),
    "solar_open": Family(
        qkv_bias="attention_bias", defaults=(("attention_bias", False),), head_dim=128, kv_heads="required",
        experts=ExpertFields(count="n_routed_experts", shared="count", shared_field="n_shared_experts"),
    ),
}  # fmt: skip
"""Families whose layers are more than attention over all tokens and one MLP."""

EXPERT_ALIASES = {
    "glm4v_moe_text": "glm4_moe",
    "kimi_k2": "deepseek_v3",
    "qwen3_omni_moe_text": "qwen3_moe",
    "qwen3_vl_moe_text": "qwen3_moe",
}
"""Other names -> the family with the same layers."""
