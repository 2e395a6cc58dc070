"""Small configs of every described family with the fewest fields, and what transformers makes of them."""

from __future__ import annotations

from typing import Any

from helix_kit.hf_config import EXPERT_ALIASES, EXPERT_FAMILIES, FAMILIES, TEXT_MODELS

# Not known to transformers, or no decoder by itself there.
NOT_BUILT = {"kimi_k2", "qwen2_5_vl", "qwen2_vl", "qwen3_omni_moe_text"}
KINDS = sorted({*FAMILIES, *EXPERT_FAMILIES, *TEXT_MODELS, *EXPERT_ALIASES, "falcon"} - NOT_BUILT)
LINEAR = {
    "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 12,
}  # fmt: skip
OWN: dict[str, dict[str, Any]] = {
    "dots1": {"n_shared_experts": 1},
    "falcon": {"new_decoder_architecture": True, "num_kv_heads": 2},
    "gemma4_text": {"hidden_size_per_layer_input": 0},
    "gpt2": {"n_inner": 160},
    "gpt_bigcode": {"n_inner": 160},
    "gptj": {"n_inner": 160, "rotary_dim": 8},
    "hunyuan_v1_dense": {"head_dim": 16},
    "llama4_text": {"intermediate_size_mlp": 200},
    "ministral": {"head_dim": 16},
    "opt": {"ffn_dim": 160},
    "qwen3_5_moe_text": LINEAR,
    "qwen3_5_text": LINEAR,
    "qwen3_next": LINEAR,
}


def fewest_fields(kind: str, layers: int) -> dict[str, Any]:
    """The sizes of a decoder and nothing else."""
    fields: dict[str, Any] = {
        "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 160,
        "num_hidden_layers": layers, "vocab_size": 300, "max_position_embeddings": 32768, "pad_token_id": 0,
        "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    family = {**FAMILIES, **EXPERT_FAMILIES}.get(EXPERT_ALIASES.get(kind, kind))
    if family and family.latent:
        fields |= {"kv_lora_rank": 20, "qk_nope_head_dim": 12, "qk_rope_head_dim": 4, "v_head_dim": 10}
    if family and family.experts:
        fields |= {family.experts.count: 8, family.experts.active: 2, family.experts.width: 24}
    fields |= OWN.get(kind, {})
    if kind == "falcon" or {"ffn_dim", "n_inner"} & set(fields):
        fields.pop("intermediate_size")
    return fields


def layers_of(config: Any) -> Any:
    """The decoder layers of transformers' model, on the meta device."""
    import torch
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoModel, AutoModelForCausalLM

    make = AutoModelForCausalLM if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING else AutoModel
    with torch.device("meta"):
        model = make.from_config(config)
    return next(
        module
        for module in model.modules()
        if isinstance(module, torch.nn.ModuleList) and len(module) == config.num_hidden_layers
    )


def counted_layers(config: Any) -> list[int]:
    """Parameters of each decoder layer of transformers' model."""
    return [sum(parameter.numel() for parameter in layer.parameters()) for layer in layers_of(config)]


def windows_of(config: Any) -> list[str]:
    """The attention of each layer as transformers' models take it from their config."""
    layers, window = config.num_hidden_layers, getattr(config, "sliding_window", None)
    listed = getattr(config, "layer_types", None)
    if listed is None:  # these models slide in all layers or in none
        listed = ["sliding_attention" if window else "full_attention"] * layers
    return [
        "full" if kind == "sliding_attention" and not window else kind.removesuffix("_attention") for kind in listed
    ]
