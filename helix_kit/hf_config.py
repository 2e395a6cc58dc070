"""Sizes of a model from its Hugging Face ``config.json``.

Each family of `FAMILIES` is a dense decoder whose layer this module counts exactly: the tests compare every family with
the parameters of transformers' own layers. Whatever the tables do not describe is refused by name: other families,
mixtures of experts, multi-head latent attention, hybrids, quantised weights, encoders.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from helix_kit._files import unknown
from helix_kit.errors import InputError

Switch = bool | str
"""Whether a part is there: always, never, or as a field of the config says (its name; see `Family.defaults`)."""


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
    tied: bool = False
    """Whether the output projection is the embedding where the config has no ``tie_word_embeddings``."""


_BIASED = Family(mlp_matrices=2, norm_params=2, qkv_bias=True, out_bias=True, mlp_bias=True, kv_heads="all")
_LLAMA_BIAS = (("attention_bias", False), ("mlp_bias", False))
_LLAMA = Family(qkv_bias="attention_bias", out_bias="attention_bias", mlp_bias="mlp_bias", defaults=_LLAMA_BIAS)
_ATTENTION_BIAS = Family(qkv_bias="attention_bias", out_bias="attention_bias", defaults=(("attention_bias", False),))


def _with(family: Family, **changes: Any) -> Family:
    return Family(**{**family.__dict__, **changes})


FAMILIES: Mapping[str, Family] = {
    "arcee": _with(_LLAMA, mlp_matrices=2),
    "bloom": _with(_BIASED, tied=True),
    "cohere": _with(
        _ATTENTION_BIAS, norms=1, qk_norm="heads", qk_norm_if="use_qk_norm",
        defaults=(("attention_bias", False), ("use_qk_norm", False)), tied=True,
    ),
    "cohere2": _with(_ATTENTION_BIAS, norms=1, tied=True),
    "ernie4_5": Family(
        qkv_bias="use_bias", out_bias="use_bias", mlp_bias="use_bias", defaults=(("use_bias", False),),
        head_dim=128, kv_heads="required", tied=True,
    ),
    "exaone4": Family(qk_norm="head", kv_heads="required"),
    "gemma": _with(_ATTENTION_BIAS, head_dim=256, kv_heads="required", tied=True),
    "gemma2": _with(_ATTENTION_BIAS, norms=4, head_dim=256, kv_heads="required", tied=True),
    "gemma3_text": _with(_ATTENTION_BIAS, norms=4, qk_norm="head", head_dim=256, kv_heads="required", tied=True),
    "glm": Family(
        qkv_bias="attention_bias", defaults=(("attention_bias", False),), head_dim=128, kv_heads="required"
    ),
    "glm4": Family(
        qkv_bias="attention_bias", defaults=(("attention_bias", False),), norms=4, head_dim=128, kv_heads="required"
    ),
    "gpt2": _with(_BIASED, refused=("add_cross_attention",), tied=True),
    "gpt_bigcode": _with(_BIASED, kv_heads="multi_query", refused=("add_cross_attention",), tied=True),
    "gpt_neox": _with(
        _BIASED, qkv_bias="attention_bias", out_bias="attention_bias", defaults=(("attention_bias", True),)
    ),
    "gptj": Family(mlp_matrices=2, norms=1, norm_params=2, mlp_bias=True, kv_heads="all"),
    "granite": _LLAMA,
    "hunyuan_v1_dense": _with(_ATTENTION_BIAS, qk_norm="head"),
    "llama": _LLAMA,
    "ministral": Family(kv_heads="required"),
    "mistral": Family(kv_heads="required"),
    "nemotron": _with(_LLAMA, mlp_matrices=2, norm_params=2),
    "olmo": _with(_ATTENTION_BIAS, norm_params=0),
    "olmo2": _with(_ATTENTION_BIAS, qk_norm="heads"),
    "olmo3": _with(_ATTENTION_BIAS, qk_norm="heads"),
    "opt": _with(
        _BIASED, qkv_bias="enable_bias", out_bias="enable_bias", mlp_bias="enable_bias",
        defaults=(("enable_bias", True), ("layer_norm_elementwise_affine", True)), tied=True,
    ),
    "phi": _with(_BIASED, norms=1, kv_heads="optional", refused=("qk_layernorm",)),
    "phi3": Family(),
    "qwen2": Family(qkv_bias=True, kv_heads="required"),
    "qwen3": _with(_ATTENTION_BIAS, qk_norm="head", head_dim=128, kv_heads="required"),
    "seed_oss": Family(
        qkv_bias="attention_bias", out_bias="attention_out_bias", mlp_bias="mlp_bias", head_dim=128,
        defaults=(("attention_bias", True), ("attention_out_bias", False), ("mlp_bias", False)), kv_heads="required",
    ),
    "smollm3": _with(_LLAMA, kv_heads="required", tied=True),
    "stablelm": Family(
        norm_params=2, qkv_bias="use_qkv_bias", defaults=(("use_qkv_bias", False),), kv_heads="required",
        refused=("qk_layernorm", "use_parallel_residual"),
    ),
    "starcoder2": _with(
        _BIASED, qkv_bias="use_bias", out_bias="use_bias", mlp_bias="use_bias", defaults=(("use_bias", True),),
        kv_heads="required", tied=True,
    ),
}  # fmt: skip
"""Dense decoders by ``model_type``."""

TEXT_MODELS = {
    "ministral3": "mistral",
    "qwen2_5_vl_text": "qwen2",
    "qwen2_vl_text": "qwen2",
    "qwen3_vl_text": "qwen3",
}
"""Decoders inside multimodal models -> the family with the same layer."""

_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts", "num_moe_experts", "ffn_config")
_LATENT = ("kv_lora_rank", "q_lora_rank")
_HYBRID = (
    "attn_layer_period", "mamba_d_state", "mamba_d_conv", "ssm_cfg", "state_size", "attn_layer_indices",
    "hybrid_override_pattern", "linear_num_value_heads", "block_types",
)  # fmt: skip
_ALIASES = {
    "hidden_size": ("hidden_size", "n_embd", "n_embed", "d_model"),
    "num_layers": ("num_hidden_layers", "n_layer", "n_layers"),
    "num_heads": ("num_attention_heads", "n_head", "n_heads"),
    "intermediate_size": ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size"),
    "vocab_size": ("vocab_size",),
}
_FOUR_TIMES = {"bloom", "falcon", "gpt2", "gpt_bigcode", "gptj"}
"""Families whose MLP is four times as wide as the hidden size where the config gives no width."""
DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


def read_sizes(config: Mapping[str, Any], file: Path, dtype_bytes: int | None = None) -> dict[str, Any]:
    """Fields of `helix_kit.model.Model` from a parsed config.json.

    Parameters
    ----------
    config
        The content of the file.
    file
        Named in errors.
    dtype_bytes
        Bytes of a weight. None: as the config's ``torch_dtype`` says, and 2 where it says nothing.

    Returns
    -------
    dict
        All fields but the name. `layer_gb` counts every parameter of a layer.

    Raises
    ------
    InputError
        The config is not that of a supported dense decoder. The message names field and value.
    """
    config, where = _decoder_of(config, file)
    kind = str(config.get("model_type", ""))
    _refuse_other_kinds(config, where, kind)
    family = _falcon(config) if kind == "falcon" else FAMILIES[TEXT_MODELS.get(kind, kind)]
    for switch in family.refused:
        if config.get(switch):
            raise InputError(f"not supported for {kind}", where=where, field=switch, value=config[switch])
    hidden = _need(config, where, *_ALIASES["hidden_size"])
    heads = _need(config, where, *_ALIASES["num_heads"])
    kv_heads = _kv_heads(config, where, family, heads)
    head_dim = _optional(config, where, "head_dim") or family.head_dim or _whole(hidden, heads, where)
    width = _mlp_width(config, where, kind, hidden)
    switches = {**dict(family.defaults), **{k: v for k, v in config.items() if isinstance(v, bool)}}
    norm_params = 0 if switches.get("layer_norm_elementwise_affine") is False else family.norm_params

    def is_on(switch: Switch) -> bool:
        return switches[switch] if isinstance(switch, str) else switch

    q, kv = heads * head_dim, kv_heads * head_dim
    params = (
        2 * hidden * q + 2 * hidden * kv + family.mlp_matrices * hidden * width + norm_params * family.norms * hidden
    )
    params += is_on(family.qkv_bias) * (q + 2 * kv) + is_on(family.out_bias) * hidden
    params += is_on(family.mlp_bias) * ((family.mlp_matrices - 1) * width + hidden)
    if family.qk_norm and (not family.qk_norm_if or is_on(family.qk_norm_if)):
        params += 2 * head_dim if family.qk_norm == "head" else q + kv
    weight_bytes = dtype_bytes or _dtype_bytes(config, where)
    vocabulary = _need(config, where, *_ALIASES["vocab_size"])
    return {
        "num_layers": _need(config, where, *_ALIASES["num_layers"]),
        "hidden_size": hidden,
        "num_heads": heads,
        "num_kv_heads": kv_heads,
        "head_dim": head_dim,
        "intermediate_size": width,
        "vocab_size": vocabulary,
        "dtype_bytes": weight_bytes,
        "mlp_matrices": family.mlp_matrices,
        "layer_gb": params * weight_bytes / 1e9,
        # A token id of a vocabulary over 65,536 does not fit in two bytes.
        "token_bytes": 2 if vocabulary <= 1 << 16 else 4,
        "tied_embeddings": _is_tied(config, where, family),
    }


def _decoder_of(config: Mapping[str, Any], file: Path) -> tuple[Mapping[str, Any], str]:
    """The decoder's own config, which multimodal models keep under ``text_config``, and its place for errors."""
    nested = config.get("text_config")
    if nested is None:
        return config, str(file)
    where = f"{file}: text_config"
    if not isinstance(nested, dict):
        raise InputError("expected an object with the decoder's sizes", where=file, field="text_config", value=nested)
    if "model_type" not in nested:
        raise InputError("missing field: expected model_type", where=where)
    shared = ("torch_dtype", "dtype", "quantization_config", "tie_word_embeddings")
    inherited = {k: config[k] for k in shared if k in config}
    return {**inherited, **nested}, where


def _refuse_other_kinds(config: Mapping[str, Any], where: str, kind: str) -> None:
    for field in _EXPERTS:
        value = config.get(field)
        if value not in (None, 0, 1) and (field != "ffn_config" or "moe_num_experts" in value):
            raise InputError(
                "mixture-of-experts models are not supported: expected a dense decoder",
                where=where, field=field, value=value if isinstance(value, int) else None,
            )  # fmt: skip
    if kind.endswith("_moe") or "moe" in kind.split("_"):
        raise InputError(
            "mixture-of-experts models are not supported: expected a dense decoder",
            where=where, field="model_type", value=kind,
        )  # fmt: skip
    for field in _LATENT:
        if config.get(field):
            expected = "multi-head latent attention is not supported: expected keys and values of whole heads"
            raise InputError(expected, where=where, field=field, value=config[field])
    hybrid = next((field for field in _HYBRID if config.get(field)), None)
    layers = set(config.get("layer_types") or ()) - {"full_attention", "sliding_attention", "chunked_attention"}
    if hybrid or layers:
        field, value = (hybrid, config[hybrid]) if hybrid else ("layer_types", sorted(layers))
        raise InputError(
            "models whose layers differ in kind are not supported: expected attention in every layer",
            where=where, field=field, value=value,
        )  # fmt: skip
    if config.get("is_encoder_decoder"):
        raise InputError("expected a decoder without an encoder", where=where, field="is_encoder_decoder", value=True)
    if config.get("quantization_config"):
        quantization = config["quantization_config"]
        method = quantization.get("quant_method") if isinstance(quantization, dict) else quantization
        expected = "quantised weights are not supported: expected a config without quantization_config"
        raise InputError(expected, where=where, field="quantization_config.quant_method", value=method)
    if not kind:
        raise InputError("missing field: expected model_type", where=where)
    if kind not in {*FAMILIES, *TEXT_MODELS, "falcon"}:
        families = sorted({*FAMILIES, *TEXT_MODELS, "falcon"})
        raise InputError(unknown("model family", kind, families), where=where, field="model_type")


def _falcon(config: Mapping[str, Any]) -> Family:
    """Falcon's three layers: with grouped heads and two norms, multi-query with one norm, and sequential."""
    grouped = bool(config.get("new_decoder_architecture"))
    parallel = config.get("parallel_attn", True)
    norms = (config.get("num_ln_in_parallel_attn") or 2) if grouped else 1 if parallel else 2
    return Family(
        mlp_matrices=2, norms=norms, norm_params=2, qkv_bias="bias", out_bias="bias", mlp_bias="bias",
        defaults=(("bias", False),), tied=True,
        kv_heads="num_kv_heads" if grouped else "multi_query",
    )  # fmt: skip


def _kv_heads(config: Mapping[str, Any], where: str, family: Family, heads: int) -> int:
    if family.kv_heads == "all" or (family.kv_heads == "multi_query" and not config.get("multi_query", True)):
        return heads
    if family.kv_heads == "multi_query":
        return 1
    if family.kv_heads == "required":
        return _need(config, where, "num_key_value_heads")
    field = "num_kv_heads" if family.kv_heads == "num_kv_heads" else "num_key_value_heads"
    return _optional(config, where, field) or heads


def _mlp_width(config: Mapping[str, Any], where: str, kind: str, hidden: int) -> int:
    if kind == "bloom":
        return 4 * hidden
    fields = _ALIASES["intermediate_size"]
    if kind in _FOUR_TIMES and all(config.get(field) is None for field in fields):
        return 4 * hidden
    return _need(config, where, *fields)


def _is_tied(config: Mapping[str, Any], where: str, family: Family) -> bool:
    given = config.get("tie_word_embeddings")
    if given is None:
        return family.tied
    if not isinstance(given, bool):
        raise InputError("expected true or false", where=where, field="tie_word_embeddings", value=given)
    return given


def _need(config: Mapping[str, Any], where: str, *fields: str) -> int:
    for field in fields:
        if value := _optional(config, where, field):
            return value
    raise InputError(f"missing field: expected {' or '.join(fields)}", where=where)


def _optional(config: Mapping[str, Any], where: str, field: str) -> int:
    """A positive whole number, or 0 where the field is missing or null."""
    value = config.get(field)
    if value is None:
        return 0
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    raise InputError("expected a positive whole number", where=where, field=field, value=value)


def _whole(hidden: int, heads: int, where: str) -> int:
    if hidden % heads:
        expected = f"expected a multiple of the {heads} heads, or a head_dim"
        raise InputError(expected, where=where, field="hidden_size", value=hidden)
    return hidden // heads


def _dtype_bytes(config: Mapping[str, Any], where: str) -> int:
    name = str(config.get("torch_dtype") or config.get("dtype") or "bfloat16").removeprefix("torch.")
    if name not in DTYPE_BYTES:
        raise InputError(f"expected one of {', '.join(DTYPE_BYTES)}", where=where, field="torch_dtype", value=name)
    return DTYPE_BYTES[name]


__all__ = ["FAMILIES", "TEXT_MODELS"]
