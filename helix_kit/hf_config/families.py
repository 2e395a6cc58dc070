"""The families of decoders by ``model_type``, and how the layers of each are built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Switch = bool | str
"""Whether a part is there: always, never, or as a field of the config says (its name; see `Family.defaults`)."""


@dataclass(frozen=True)
class ExpertFields:
    """Where a family's config says how its experts are built."""

    count: str = "num_experts"
    active: str = "num_experts_per_tok"
    width: str = "moe_intermediate_size"
    shared: Literal["", "count", "width", "one", "dense"] = ""
    """Experts that every token takes: none, `shared_field` of them, one of the width in `shared_field`, one, or the
    layer's dense MLP."""
    shared_field: str = ""
    shared_gate: bool = False
    """Whether the shared expert is scaled by a gate of the hidden size."""
    bias: bool = False
    """Whether experts and router have biases."""
    router_vectors: int = 0
    """Further parameters of the router for each expert."""
    router_scale: bool = False
    """Whether the router scales its input, by a vector of the hidden size."""
    norms: int = 0
    """Further norms of the hidden state in a layer with experts."""
    switch: str = ""
    """Field that must be on for any layer to have experts. "": none is needed."""
    layers: Literal["all", "sparse_step", "first_dense", "interleave", "ernie"] = "all"
    """Which layers have experts where the config does not list them."""


@dataclass(frozen=True)
class Family:
    """How the layer of one ``model_type`` is built."""

    mlp_matrices: int = 3
    """3 for a gated MLP, 2 for a plain one."""
    norms: int = 2
    norm_params: int = 1
    """Vectors in each norm: 0 (no parameters), 1 (weight) or 2 (weight and bias)."""
    qkv_bias: Switch = False
    out_bias: Switch = False
    mlp_bias: Switch = False
    qk_norm: Literal["", "head", "heads"] = ""
    """Norms of queries and keys: none, one vector of a head's size for all heads, or one for each head."""
    qk_norm_if: str = ""
    """Field that switches `qk_norm` on. "": always on."""
    head_dim: int = 0
    """Size of a head where the config has no ``head_dim``. 0: hidden size / heads."""
    kv_heads: Literal["optional", "required", "all", "multi_query", "num_kv_heads"] = "optional"
    """Where the number of key-value heads comes from: ``num_key_value_heads`` ("optional": as many as query heads where
    it is missing), no grouping ("all"), one head where ``multi_query`` is on, or Falcon's ``num_kv_heads``."""
    defaults: tuple[tuple[str, bool], ...] = ()
    """Value of each switch that a config leaves out."""
    refused: tuple[str, ...] = ()
    """Switches that would change the layer in a way that is not described here."""
    windows: Literal["", "all", "even", "even_early", "pattern", "late", "no_rope", "chunks", "linear"] = ""
    """Which layers see a window where the config has no ``layer_types``: none, all, every other from the first (before
    ``max_window_layers`` with "even_early"), all but every n-th (`window_pattern`), those from ``max_window_layers``
    on, those without rotary embeddings, or chunks; "linear": all but every n-th layer have linear attention."""
    window_pattern: int = 0
    window_switch: bool = False
    """Whether no layer has a window unless ``use_sliding_window`` is on."""
    reads_layer_types: bool = False
    """Whether transformers' class goes by a config's ``layer_types``. Others go by `windows` alone."""
    last_is_full: bool = False
    """Whether the last layer sees all tokens whatever is listed."""
    keys_are_values: Switch = False
    """Whether the attention computes no values of its own, but takes the keys."""
    full_layers: tuple[tuple[str, str], ...] = ()
    """Fields that other layers than sliding ones have in the place of a field of the same meaning."""
    heads_vector: bool = False
    """Whether the attention has one number for each query head (attention sinks)."""
    gated_query: bool = False
    """Whether queries come with gates of the same size."""
    latent: bool = False
    """Multi-head latent attention."""
    experts: ExpertFields | None = None
    tied: bool = False
    """Whether the output projection is the embedding where the config has no ``tie_word_embeddings``."""


_BIASED = Family(mlp_matrices=2, norm_params=2, qkv_bias=True, out_bias=True, mlp_bias=True, kv_heads="all")
_LLAMA_BIAS = (("attention_bias", False), ("mlp_bias", False))
_LLAMA = Family(qkv_bias="attention_bias", out_bias="attention_bias", mlp_bias="mlp_bias", defaults=_LLAMA_BIAS)
_ATTENTION_BIAS = Family(qkv_bias="attention_bias", out_bias="attention_bias", defaults=(("attention_bias", False),))


def with_changes(family: Family, **changes: Any) -> Family:
    """The family with other values of some fields."""
    return Family(**{**family.__dict__, **changes})


FAMILIES: Mapping[str, Family] = {
    "arcee": with_changes(_LLAMA, mlp_matrices=2),
    "bloom": with_changes(_BIASED, tied=True),
    "cohere": with_changes(
        _ATTENTION_BIAS, norms=1, qk_norm="heads", qk_norm_if="use_qk_norm",
        defaults=(("attention_bias", False), ("use_qk_norm", False)), tied=True,
    ),
    "cohere2": with_changes(
        _ATTENTION_BIAS, norms=1, tied=True, windows="pattern", window_pattern=4, reads_layer_types=True,
        refused=("use_qk_norm",),
    ),
    "ernie4_5": Family(
        qkv_bias="use_bias", out_bias="use_bias", mlp_bias="use_bias", defaults=(("use_bias", False),),
        head_dim=128, kv_heads="required", tied=True,
    ),
    "exaone4": Family(
        qk_norm="head", kv_heads="required", windows="pattern", window_pattern=4, reads_layer_types=True
    ),
    "gemma": with_changes(_ATTENTION_BIAS, head_dim=256, kv_heads="required", tied=True),
    "gemma2": with_changes(
        _ATTENTION_BIAS, norms=4, head_dim=256, kv_heads="required", tied=True, windows="even", reads_layer_types=True
    ),
    "gemma3_text": with_changes(
        _ATTENTION_BIAS, norms=4, qk_norm="head", head_dim=256, kv_heads="required", tied=True, windows="pattern",
        window_pattern=6, reads_layer_types=True,
    ),
    "glm": Family(
        qkv_bias="attention_bias", defaults=(("attention_bias", True),), head_dim=128, kv_heads="required"
    ),
    "glm4": Family(
        qkv_bias="attention_bias", defaults=(("attention_bias", True),), norms=4, head_dim=128, kv_heads="required"
    ),
    "gpt2": with_changes(_BIASED, refused=("add_cross_attention",), tied=True),
    "gpt_bigcode": with_changes(_BIASED, kv_heads="multi_query", refused=("add_cross_attention",), tied=True),
    "gpt_neox": with_changes(
        _BIASED, qkv_bias="attention_bias", out_bias="attention_bias", defaults=(("attention_bias", True),)
    ),
    "gptj": Family(mlp_matrices=2, norms=1, norm_params=2, mlp_bias=True, kv_heads="all"),
    "granite": _LLAMA,
    "hunyuan_v1_dense": with_changes(_ATTENTION_BIAS, qk_norm="head", refused=("use_cla",)),
    "llama": _LLAMA,
    "ministral": Family(kv_heads="required", windows="all", reads_layer_types=True),
    "mistral": Family(kv_heads="required", windows="all"),
    "nemotron": with_changes(_LLAMA, mlp_matrices=2, norm_params=2),
    "olmo": with_changes(_ATTENTION_BIAS, norm_params=0),
    "olmo2": with_changes(_ATTENTION_BIAS, qk_norm="heads"),
    "olmo3": with_changes(
        _ATTENTION_BIAS, qk_norm="heads", windows="pattern", window_pattern=4, reads_layer_types=True
    ),
    "opt": with_changes(
        _BIASED, qkv_bias="enable_bias", out_bias="enable_bias", mlp_bias="enable_bias",
        defaults=(("enable_bias", True), ("layer_norm_elementwise_affine", True)), tied=True,
    ),
    "phi": with_changes(_BIASED, norms=1, kv_heads="optional", refused=("qk_layernorm",)),
    "phi3": Family(windows="all"),
    "qwen2": Family(qkv_bias=True, kv_heads="required", windows="late", window_switch=True, reads_layer_types=True),
    "qwen3": with_changes(
        _ATTENTION_BIAS, qk_norm="head", head_dim=128, kv_heads="required", windows="late", window_switch=True,
        reads_layer_types=True,
    ),
    "seed_oss": Family(
        qkv_bias="attention_bias", out_bias="attention_out_bias", mlp_bias="mlp_bias", head_dim=128,
        defaults=(("attention_bias", True), ("attention_out_bias", False), ("mlp_bias", False)), kv_heads="required",
    ),
    "smollm3": with_changes(
        _LLAMA, kv_heads="required", tied=True, windows="no_rope", window_switch=True, reads_layer_types=True
    ),
    "stablelm": Family(
        norm_params=2, qkv_bias="use_qkv_bias", defaults=(("use_qkv_bias", False),), kv_heads="required",
        refused=("qk_layernorm", "use_parallel_residual"),
    ),
    "starcoder2": with_changes(
        _BIASED, qkv_bias="use_bias", out_bias="use_bias", mlp_bias="use_bias", defaults=(("use_bias", True),),
        kv_heads="required", tied=True, windows="all",
    ),
}  # fmt: skip
"""Dense decoders by ``model_type``."""

TEXT_MODELS = {
    "glm4v_text": "glm4",
    "ministral3": "mistral",
    "qwen2_5_vl": "qwen2",
    "qwen2_5_vl_text": "qwen2",
    "qwen2_vl": "qwen2",
    "qwen2_vl_text": "qwen2",
    "qwen3_vl_text": "qwen3",
}
"""Decoders inside multimodal models -> the family with the same layer. Older files of Qwen2-VL have the decoder's
fields beside the others, under the name of the whole model."""
