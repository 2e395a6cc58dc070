"""Which layers of a config have a window and which have experts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from helix_kit.errors import InputError
from helix_kit.hf_config.families import Family
from helix_kit.hf_config.fields import need, optional, size

LAYER_TYPES = ("full_attention", "sliding_attention", "chunked_attention", "linear_attention")
_FULL, _SLIDING, _CHUNKED, _LINEAR = LAYER_TYPES


def attention_types(config: Mapping[str, Any], where: str, family: Family, num_layers: int) -> list[str]:
    """The type of each layer's attention, one of `LAYER_TYPES`."""
    given = config.get("layer_types")
    if given is not None:
        if not isinstance(given, list) or len(given) != num_layers:
            count = len(given) if isinstance(given, list) else given
            raise InputError(f"expected {num_layers} types, got", where=where, field="layer_types", value=count)
        unknown = sorted({str(t) for t in given} - set(LAYER_TYPES))
        if unknown or (family.windows != "linear" and _LINEAR in given):
            raise InputError(
                "models whose layers differ in kind are not supported beyond "
                "full, sliding, chunked and (Qwen3-Next) linear attention",
                where=where, field="layer_types", value=unknown or [_LINEAR],
            )  # fmt: skip
        return list(given)
    return _by_rule(config, where, family, num_layers)


def _by_rule(config: Mapping[str, Any], where: str, family: Family, num_layers: int) -> list[str]:
    layers = range(num_layers)
    if family.windows == "linear":
        interval = optional(config, where, "full_attention_interval") or family.window_pattern
        return [_LINEAR if (i + 1) % interval else _FULL for i in layers]
    if family.windows == "chunks":
        rope = config.get("no_rope_layers")
        if not isinstance(rope, list) or len(rope) != num_layers:
            interval = optional(config, where, "no_rope_layer_interval") or 4
            rope = [(i + 1) % interval != 0 for i in layers]
        return [_CHUNKED if value else _FULL for value in rope]
    if family.windows == "even":
        return [_FULL if i % 2 else _SLIDING for i in layers]
    if family.windows == "pattern":
        given = optional(config, where, "sliding_window_pattern") if _is_count(config) else 0
        pattern = given or optional(config, where, "_sliding_window_pattern") or family.window_pattern
        return [_SLIDING if (i + 1) % pattern else _FULL for i in layers]
    if family.windows == "late":
        first = size(config, where, "max_window_layers", num_layers) if config.get("use_sliding_window") else num_layers
        return [_SLIDING if i >= first else _FULL for i in layers]
    return [_SLIDING if family.windows == "all" else _FULL] * num_layers


def _is_count(config: Mapping[str, Any]) -> bool:
    """Whether the pattern is a number: Exaone writes it as letters, such as LLLG, one for each layer of a round."""
    return not isinstance(config.get("sliding_window_pattern"), str)


def window_tokens(config: Mapping[str, Any], where: str, attention_type: str) -> int | None:
    """Tokens that a layer of this type sees at most. None: all, also where the window is longer than any context."""
    name = {_SLIDING: "sliding_window", _CHUNKED: "attention_chunk_size"}.get(attention_type)
    if name is None:
        return None
    window = size(config, where, name)
    longest = size(config, where, "max_position_embeddings")
    return window if window and not (longest and window >= longest) else None


def layers_with_experts(config: Mapping[str, Any], where: str, family: Family, num_layers: int) -> list[bool]:
    """Whether each layer has experts."""
    fields, layers = family.experts, range(num_layers)
    if fields is None:
        return [False] * num_layers
    listed = config.get("mlp_layer_types")
    if listed is not None:
        if not isinstance(listed, list) or len(listed) != num_layers or set(listed) - {"dense", "sparse"}:
            expected = f"expected dense or sparse for each of {num_layers} layers"
            raise InputError(expected, where=where, field="mlp_layer_types", value=str(listed)[:60])
        return [value == "sparse" for value in listed]
    if fields.layers == "sparse_step":
        dense = config.get("mlp_only_layers") or []
        step = optional(config, where, "decoder_sparse_step") or 1
        return [i not in dense and (i + 1) % step == 0 for i in layers]
    if fields.layers == "first_dense":
        frequency = optional(config, where, "moe_layer_freq") or 1
        if frequency != 1:
            raise InputError("expected 1: experts in each layer", where=where, field="moe_layer_freq", value=frequency)
        first = size(config, where, "first_k_dense_replace", 0)
        return [i >= first for i in layers]
    if fields.layers == "interleave":
        moe = config.get("moe_layers")
        if isinstance(moe, list):
            return [i in moe for i in layers]
        step = need(config, where, "interleave_moe_layer_step")
        return [(i + 1) % step == 0 for i in layers]
    if fields.layers == "ernie":
        first, step = (
            size(config, where, "moe_layer_start_index", 1),
            optional(config, where, "moe_layer_interval") or 1,
        )
        last = config.get("moe_layer_end_index", -1)
        last = num_layers - 1 if not isinstance(last, int) or last < 0 else last
        return [first <= i <= last and (i + 1) % step == 0 for i in layers]
    return [True] * num_layers
