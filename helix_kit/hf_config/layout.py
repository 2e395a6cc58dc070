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
    by_rule = _by_rule(config, where, family, num_layers)
    if family.last_is_full:
        by_rule[-1] = _FULL
    given = config.get("layer_types")
    if given is None:
        return by_rule
    if not isinstance(given, list) or len(given) != num_layers:
        count = len(given) if isinstance(given, list) else given
        raise InputError(f"expected {num_layers} types, got", where=where, field="layer_types", value=count)
    own = {"chunks": _CHUNKED, "linear": _LINEAR}.get(family.windows, _SLIDING)
    unknown = sorted({str(kind) for kind in given} - {_FULL, own})
    if unknown:
        expected = f"layers of other kinds are not described for this family: expected {_FULL} or {own}"
        raise InputError(expected, where=where, field="layer_types", value=unknown)
    if own == _SLIDING and not _has_windows(config, where, family):
        return [_FULL] * num_layers
    if not family.reads_layer_types and given != by_rule:
        raise InputError(
            f"transformers takes no layer_types for this family: expected {by_rule[0]} in every layer, or a family "
            "whose layers differ",
            where=where, field="layer_types", value=sorted(set(given)),
        )  # fmt: skip
    return [*given[:-1], _FULL] if family.last_is_full else list(given)


def layer_changes(
    config: Mapping[str, Any], where: str, family: Family, types: list[str]
) -> list[tuple[tuple[str, Any], ...]]:
    """Fields of each layer that differ from the config's own, and their values.

    Full layers of Gemma-4 have heads of another size. transformers writes that as ``per_layer_config``, by the layer's
    number, and its authors as fields of their own.
    """
    if not family.full_layers:
        if config.get("per_layer_config"):
            expected = "layers with other fields than the config's own are not described for this family"
            raise InputError(expected, where=where, field="per_layer_config")
        return [()] * len(types)
    own, given = {name for name, _ in family.full_layers}, config.get("per_layer_config") or {}
    entries = given if isinstance(given, dict) else {"": given}
    listed: dict[int, dict[str, Any]] = {}
    for number, one in entries.items():
        is_fields = isinstance(one, dict) and set(one) <= own and {int}.issuperset(map(type, one.values()))
        if not is_fields or not str(number).isdecimal():
            expected = f"expected {' or '.join(sorted(own))} by number of the layer"
            raise InputError(expected, where=where, field="per_layer_config", value=str(given)[:60])
        listed[int(number)] = one
    switch, changes = family.keys_are_values, []
    for layer, kind in enumerate(types):
        if kind == _SLIDING:
            changed = {switch: False} if isinstance(switch, str) else {}
        elif listed:
            changed = {}
        else:
            # Without the switch, full layers have as many key-value heads as the others.
            fields = family.full_layers if config.get(str(switch)) else family.full_layers[:1]
            changed = {name: config[other] for name, other in fields if config.get(other) is not None}
        changes.append(tuple((changed | listed.get(layer, {})).items()))
    return changes


def _has_windows(config: Mapping[str, Any], where: str, family: Family) -> bool:
    """Whether sliding layers have a window: a family may switch all of them off, and a window may be null."""
    is_on = config.get("use_sliding_window") if family.window_switch else True
    return bool(is_on) and window_tokens(config, where, _SLIDING) is not None


def _by_rule(config: Mapping[str, Any], where: str, family: Family, num_layers: int) -> list[str]:
    layers, rule = range(num_layers), family.windows
    if rule == "linear":
        interval = optional(config, where, "full_attention_interval") or family.window_pattern
        return [_LINEAR if (i + 1) % interval else _FULL for i in layers]
    if rule == "chunks":
        return [_CHUNKED if has_rope else _FULL for has_rope in _rotary_layers(config, where, num_layers)]
    if not rule or (family.window_switch and not config.get("use_sliding_window")):
        return [_FULL] * num_layers
    if rule == "no_rope":
        return [_FULL if has_rope else _SLIDING for has_rope in _rotary_layers(config, where, num_layers)]
    if rule == "even":
        return [_FULL if i % 2 else _SLIDING for i in layers]
    if rule == "pattern" and isinstance(config.get("sliding_window_pattern"), str):
        return _by_letters(config["sliding_window_pattern"], where, num_layers)
    if rule == "pattern":
        pattern = optional(config, where, "sliding_window_pattern")
        pattern = pattern or optional(config, where, "_sliding_window_pattern") or family.window_pattern
        return [_SLIDING if (i + 1) % pattern else _FULL for i in layers]
    first = size(config, where, "max_window_layers", num_layers)
    if rule == "even_early":
        return [_SLIDING if i % 2 == 0 and i < first else _FULL for i in layers]
    if rule == "late":
        return [_SLIDING if i >= first else _FULL for i in layers]
    return [_SLIDING] * num_layers


def _rotary_layers(config: Mapping[str, Any], where: str, num_layers: int) -> list[bool]:
    """Whether each layer has rotary embeddings: the field ``no_rope_layers`` is 1 for layers that have them."""
    given = config.get("no_rope_layers")
    if not given:
        interval = optional(config, where, "no_rope_layer_interval") or 4
        return [(i + 1) % interval != 0 for i in range(num_layers)]
    if not isinstance(given, list) or len(given) != num_layers:
        expected = f"expected 0 or 1 for each of {num_layers} layers"
        raise InputError(expected, where=where, field="no_rope_layers", value=str(given)[:60])
    return [bool(value) for value in given]


def _by_letters(pattern: str, where: str, num_layers: int) -> list[str]:
    """Exaone's own files write the layers of a round as letters, such as LLLG: local or global. The last is global."""
    if not pattern or set(pattern) - {"L", "G"}:
        expected = "expected a number, or a round of layers as letters L and G"
        raise InputError(expected, where=where, field="sliding_window_pattern", value=pattern)
    types = [_SLIDING if pattern[i % len(pattern)] == "L" else _FULL for i in range(num_layers)]
    return [*types[:-1], _FULL]


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
    if fields is None or (fields.switch and not config.get(fields.switch)):
        return [False] * num_layers
    listed = config.get("mlp_layer_types")
    if listed is not None:
        if not isinstance(listed, list) or len(listed) != num_layers or {str(v) for v in listed} - {"dense", "sparse"}:
            expected = f"expected dense or sparse for each of {num_layers} layers"
            raise InputError(expected, where=where, field="mlp_layer_types", value=str(listed)[:60])
        return [value == "sparse" for value in listed]
    if fields.layers == "sparse_step":
        dense = config.get("mlp_only_layers") or []
        if not isinstance(dense, list):
            raise InputError("expected a list of layers", where=where, field="mlp_only_layers", value=dense)
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
