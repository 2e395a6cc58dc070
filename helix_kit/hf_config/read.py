"""Fields of a `Model` from a parsed config.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from helix_kit._files import unknown
from helix_kit.errors import InputError
from helix_kit.hf_config.expert_families import EXPERT_ALIASES, EXPERT_FAMILIES
from helix_kit.hf_config.families import FAMILIES, TEXT_MODELS, Family
from helix_kit.hf_config.fields import ALIASES, dtype_bytes_of, need, token_id_bytes
from helix_kit.hf_config.layer_parts import EXPERT_COUNTS, LayerReader
from helix_kit.hf_config.layout import LAYER_TYPES, attention_types, layer_changes, layers_with_experts, window_tokens
from helix_kit.hf_config.left_out import with_left_out
from helix_kit.hf_config.module_rules import ModuleRules
from helix_kit.hf_config.quantization import read_quantization, with_old_names
from helix_kit.layers import Arithmetic, Experts, LayerKind, WeightFormat

_ALL: Mapping[str, Family] = {**FAMILIES, **EXPERT_FAMILIES}
_NAMES = {**TEXT_MODELS, **EXPERT_ALIASES}
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts", "num_moe_experts", "ffn_config")
_LATENT = ("kv_lora_rank", "q_lora_rank")
_HYBRID = (
    "attn_layer_period", "mamba_d_state", "mamba_d_conv", "ssm_cfg", "state_size", "attn_layer_indices",
    "hybrid_override_pattern", "linear_num_value_heads", "block_types",
)  # fmt: skip
_BOTH_SIDES = {"is_causal": (False,), "use_bidirectional_attention": (True, "all")}
"""Fields that make an encoder of a decoder, with the values that do. Gemma-4's "vision" is of images alone."""
_SHARED = ("torch_dtype", "dtype", "quantization_config", "tie_word_embeddings")
"""Fields that a multimodal model's config may have beside ``text_config`` in place of in it."""
MAX_LAYERS = 10_000
"""Far more than any model has: a typing error must not take the machine's memory."""
_STATE_BYTES = 4
"""The state of linear attention is kept in 32 bits."""


def read_sizes(config: Mapping[str, Any], file: str | Path, dtype_bytes: int | None = None) -> dict[str, Any]:
    """Fields of `helix_kit.model.Model` from a parsed config.json.

    Parameters
    ----------
    config
        The content of the file.
    file
        Named in errors.
    dtype_bytes
        Bytes of a weight that is not quantised. None: as the config's ``torch_dtype`` says, and 2 where it says
        nothing.

    Returns
    -------
    dict
        All fields but the name. `layer_gb` counts every parameter of a layer, on average over the layers. A model of
        equal dense layers without windows and quantisation has no `layer_kinds`.

    Raises
    ------
    InputError
        The config is not that of a supported decoder. The message names field and value.

    Examples
    --------
    >>> config = {"model_type": "mixtral", "num_hidden_layers": 32, "hidden_size": 4096, "num_attention_heads": 32,
    ...           "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 32000, "num_local_experts": 8,
    ...           "num_experts_per_tok": 2}
    >>> kind = read_sizes(config, "config.json")["layer_kinds"][0]
    >>> kind.name, kind.experts.count, round(kind.all_bytes / 1e9, 2)
    ('full attention, 2 of 8 experts', 8, 2.9)
    """
    config, where = _decoder_of(with_old_names(config), file)
    kind = str(config.get("model_type", ""))
    _refuse_other_kinds(config, where, kind)
    family = _falcon(config) if kind == "falcon" else _ALL[_NAMES.get(kind, kind)]
    config = with_left_out(config, _NAMES.get(kind, kind))
    layers = LayerReader.of(config, where, _NAMES.get(kind, kind), family)
    num_layers = need(config, where, *ALIASES["num_layers"])
    if num_layers > MAX_LAYERS:
        name = next(name for name in ALIASES["num_layers"] if config.get(name))
        raise InputError(f"expected at most {MAX_LAYERS:,}", where=where, field=name, value=num_layers)
    weight_bytes = dtype_bytes or dtype_bytes_of(config, where)
    vocabulary = need(config, where, *ALIASES["vocab_size"])
    fields = {
        "num_layers": num_layers,
        "hidden_size": layers.hidden,
        "num_heads": layers.heads,
        "num_kv_heads": layers.kv_heads,
        "head_dim": layers.head_dim,
        "intermediate_size": layers.width,
        "vocab_size": vocabulary,
        "dtype_bytes": weight_bytes,
        "mlp_matrices": family.mlp_matrices,
        "token_bytes": token_id_bytes(vocabulary),
        "tied_embeddings": _is_tied(config, where, family),
    }
    experts = layers.expert_count if config.get("quantization_config") else 0
    quantization = read_quantization(config, where, experts, is_nested=where != str(file))
    kinds, pattern = _kinds(layers, quantization, num_layers, weight_bytes)
    first = kinds[0]
    is_plain = first.attention == "full" and first.experts is None and first.weight_bytes == first.params * weight_bytes
    if len(kinds) == 1 and is_plain:
        return fields | {"layer_gb": first.params * weight_bytes / 1e9}
    return fields | {"layer_kinds": kinds, "layer_pattern": pattern if len(kinds) > 1 else ()}


class _Key(NamedTuple):
    """What layers of one kind have in common."""

    attention: str
    window: int | None
    has_experts: bool
    changes: tuple[tuple[str, Any], ...]
    """Fields in which the layers differ from the config."""
    formats: tuple[WeightFormat | None, ...]
    """Of the matrices of attention, MLP and one expert."""


def _kinds(
    layers: LayerReader, quantization: ModuleRules | None, num_layers: int, dtype_bytes: int
) -> tuple[tuple[LayerKind, ...], tuple[int, ...]]:
    """The different kinds of layers, in order of first appearance, and the index of each layer's kind."""
    config, where, family = layers.config, layers.where, layers.family
    types = attention_types(config, where, family, num_layers)
    experts = layers_with_experts(config, where, family, num_layers)
    changes = layer_changes(config, where, family, types)
    readers = {changed: layers.changed(changed) for changed in dict.fromkeys(changes)}
    keys = []
    for layer in range(num_layers):
        window = window_tokens(config, where, types[layer])
        # A sliding or chunked layer whose window is longer than any context attends to all of it.
        kind = types[layer] if window or types[layer] == LAYER_TYPES[-1] else LAYER_TYPES[0]
        formats: tuple[WeightFormat | None, ...] = ()
        if quantization is not None:
            reader = readers[changes[layer]]
            attention, mlp = reader.attention(kind), reader.mlp(experts[layer])
            formats = quantization.formats(layer, [*attention.modules, *mlp.modules, *mlp.expert_modules])
        keys.append(_Key(kind, window, experts[layer], changes[layer], formats))
    different = list(dict.fromkeys(keys))
    kinds = tuple(_kind(readers[key.changes], key, dtype_bytes) for key in different)
    names = [kind.name for kind in kinds]
    numbered = tuple(
        kind if names.count(kind.name) == 1 else kind.model_copy(update={"name": f"{kind.name} ({i})"})
        for i, kind in enumerate(kinds, 1)
    )
    return numbered, tuple(different.index(key) for key in keys)


def _kind(layers: LayerReader, key: _Key, dtype_bytes: int) -> LayerKind:
    attention, mlp = layers.attention(key.attention), layers.mlp(key.has_experts)
    matrices = [*attention.modules.values(), *mlp.modules.values()]
    expert_matrices = [*mlp.expert_modules.values()]
    formats = key.formats or (None,) * (len(matrices) + len(expert_matrices))
    own, routed = formats[: len(matrices)], formats[len(matrices) :]
    vectors = attention.vectors + mlp.vectors + layers.norm_vectors()
    experts = None
    if mlp.experts:
        experts = Experts(
            count=mlp.experts,
            active=mlp.active,
            shared=mlp.shared,
            width=mlp.width,
            params=mlp.expert_matrices + mlp.expert_vectors,
            projection_params=mlp.expert_matrices,
            weight_bytes=_stored(expert_matrices, routed, dtype_bytes) + mlp.expert_vectors * dtype_bytes,
        )
    short = key.attention.removesuffix("_attention")
    name = "latent" if layers.family.latent else short
    words = f"{mlp.active} of {mlp.experts} experts" if mlp.experts else "dense"
    computed = [*matrices, *(params * mlp.active for params in expert_matrices)]
    return LayerKind.model_validate(
        {
            "name": f"{name} attention, {words}",
            "attention": name,
            "window_tokens": key.window,
            "kv_bytes_per_token": attention.kv_elements * dtype_bytes,
            "state_bytes": attention.state_elements * _STATE_BYTES,
            "params": attention.matrices + mlp.matrices + vectors,
            "projection_params": attention.matrices + mlp.matrices,
            "weight_bytes": vectors * dtype_bytes + _stored(matrices, own, dtype_bytes),
            "experts": experts,
            "arithmetic": _arithmetic(computed, formats),
        }
    )


def _stored(matrices: Sequence[int], formats: Sequence[WeightFormat | None], dtype_bytes: int) -> float:
    """Bytes of matrices of so many parameters."""
    each = [dtype_bytes if form is None else form.bits_per_weight / 8 for form in formats]
    return sum(params * size for params, size in zip(matrices, each, strict=True))


def _arithmetic(computed: Sequence[int], formats: Sequence[WeightFormat | None]) -> Arithmetic:
    """The type in which most of these parameters are multiplied."""
    totals: dict[Arithmetic, int] = {}
    for params, form in zip(computed, formats, strict=True):
        kind: Arithmetic = "fp16" if form is None else form.arithmetic
        totals[kind] = totals.get(kind, 0) + params
    return max(totals, key=lambda kind: totals[kind])


def _decoder_of(config: Mapping[str, Any], file: str | Path) -> tuple[Mapping[str, Any], str]:
    """The decoder's own config, which multimodal models keep under ``text_config``, and its place for errors."""
    nested = config.get("text_config")
    if nested is None:
        return config, str(file)
    where = f"{file}: text_config"
    if not isinstance(nested, dict):
        raise InputError("expected an object with the decoder's sizes", where=file, field="text_config", value=nested)
    if "model_type" not in nested:
        raise InputError("missing field: expected model_type", where=where)
    inherited = {field: config[field] for field in _SHARED if field in config}
    return {**_left_out(nested, where), **inherited, **nested}, where


def _left_out(nested: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Fields of a nested config without its sizes: transformers saves only what differs from its defaults.

    Gemma-3's ``text_config`` has no ``vocab_size``, LLaVA's no sizes at all. The defaults are transformers' own.
    """
    kind = str(nested["model_type"])
    family = _ALL.get(_NAMES.get(kind, kind))
    missing = [names[0] for names in _sizes_of(family) if all(nested.get(name) is None for name in names)]
    if not missing:
        return {}
    left_out = f"leaves out {', '.join(missing)}, which then have transformers' defaults"
    try:
        from transformers import CONFIG_MAPPING
    except ImportError:
        needed = "expected all sizes, or transformers to read them: pip install 'helix-kit[runtime]'"
        raise InputError(f"{left_out}: {needed}", where=where) from None
    if kind not in CONFIG_MAPPING:
        return {}
    try:
        whole = CONFIG_MAPPING[kind](**nested).to_dict()
    except Exception as error:  # whatever it checks
        told = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"{left_out}, but transformers refuses the rest ({told})", where=where) from None
    return {field: value for field, value in whole.items() if field not in _SHARED}


def _sizes_of(family: Family | None) -> list[tuple[str, ...]]:
    """Fields that a decoder's config must have, each under one of these names."""
    experts = family.experts if family else None
    has_width = experts is None or experts.shared == "dense"
    names = [each for size, each in ALIASES.items() if has_width or size != "intermediate_size"]
    if family and family.kv_heads == "required":
        names.append(("num_key_value_heads",))
    if experts and not experts.switch:
        names += [(experts.count, *EXPERT_COUNTS), (experts.active,), (experts.width,)]
    return names


def _refuse_other_kinds(config: Mapping[str, Any], where: str, kind: str) -> None:
    if config.get("is_encoder_decoder"):
        raise InputError("expected a decoder without an encoder", where=where, field="is_encoder_decoder", value=True)
    for field, values in _BOTH_SIDES.items():
        if config.get(field) in values:
            raise InputError("expected a causal language model", where=where, field=field, value=config[field])
    types = config.get("attn_type_list")
    if isinstance(types, list) and any(value != 1 for value in types):
        expected_types = "expected 1 (attention to all tokens) for each layer"
        raise InputError(expected_types, where=where, field="attn_type_list", value=sorted({str(v) for v in types}))
    name = _NAMES.get(kind, kind)
    if name in EXPERT_FAMILIES:
        return
    for field in _EXPERTS:
        value = config.get(field)
        if value not in (None, 0, 1) and (not isinstance(value, dict) or "moe_num_experts" in value):
            raise InputError(
                f"experts of the family {kind!r} are not described: expected a dense decoder or one of "
                f"{', '.join(sorted(EXPERT_FAMILIES))}",
                where=where, field=field, value=value if isinstance(value, int) else None,
            )  # fmt: skip
    if kind.endswith("_moe") or "moe" in kind.split("_"):
        raise InputError(
            f"experts of this family are not described: expected one of {', '.join(sorted(EXPERT_FAMILIES))}",
            where=where, field="model_type", value=kind,
        )  # fmt: skip
    for field in _LATENT:
        if config.get(field):
            expected = "multi-head latent attention is not supported in this family: expected deepseek_v2 or _v3"
            raise InputError(expected, where=where, field=field, value=config[field])
    hybrid = next((field for field in _HYBRID if config.get(field)), None)
    listed = config.get("layer_types")
    layers = {str(kind) for kind in listed} - set(LAYER_TYPES[:3]) if isinstance(listed, list) else set()
    if hybrid or layers:
        field, value = (hybrid, config[hybrid]) if hybrid else ("layer_types", sorted(layers))
        raise InputError(
            "models whose layers differ in kind are not supported in this family: expected attention in every layer",
            where=where, field=field, value=value,
        )  # fmt: skip
    width = config.get("word_embed_proj_dim")  # OPT-350M's embedding
    if width is not None and width != config.get("hidden_size"):
        expected = "embeddings of another width than the hidden states' are not described"
        raise InputError(expected, where=where, field="word_embed_proj_dim", value=width)
    if not kind:
        raise InputError("missing field: expected model_type", where=where)
    if name not in _ALL and kind != "falcon":
        families = sorted({*_ALL, *_NAMES, "falcon"})
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


def _is_tied(config: Mapping[str, Any], where: str, family: Family) -> bool:
    given = config.get("tie_word_embeddings")
    if given is None:
        return family.tied
    if not isinstance(given, bool):
        raise InputError("expected true or false", where=where, field="tie_word_embeddings", value=given)
    return given


__all__ = ["read_sizes"]
