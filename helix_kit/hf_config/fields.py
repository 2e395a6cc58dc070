"""Reads single fields of a config.json, and refuses values that make no sense by field and value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from helix_kit.errors import InputError

ALIASES = {
    "hidden_size": ("hidden_size", "n_embd", "n_embed", "d_model"),
    "num_layers": ("num_hidden_layers", "n_layer", "n_layers"),
    "num_heads": ("num_attention_heads", "n_head", "n_heads"),
    "intermediate_size": ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size"),
    "vocab_size": ("vocab_size",),
}
DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


def need(config: Mapping[str, Any], where: str, *fields: str) -> int:
    """The first of these fields that has a value, a positive whole number."""
    for field in fields:
        if value := optional(config, where, field):
            return value
    raise InputError(f"missing field: expected {' or '.join(fields)}", where=where)


def optional(config: Mapping[str, Any], where: str, field: str) -> int:
    """A positive whole number, or 0 where the field is missing or null."""
    value = config.get(field)
    if value is None:
        return 0
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    raise InputError("expected a positive whole number", where=where, field=field, value=value)


def size(config: Mapping[str, Any], where: str, field: str, default: int = 0) -> int:
    """A whole number of at least 0, or `default` where the field is missing or null."""
    value = config.get(field)
    if value is None:
        return default
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise InputError("expected a whole number of at least 0", where=where, field=field, value=value)


def whole_heads(hidden: int, heads: int, where: str) -> int:
    """Size of a head that has an even share of the hidden size."""
    if hidden % heads:
        expected = f"expected a multiple of the {heads} heads, or a head_dim"
        raise InputError(expected, where=where, field="hidden_size", value=hidden)
    return hidden // heads


def token_id_bytes(vocabulary: int) -> int:
    """Bytes of a token id on a link: one of a vocabulary over 65,536 does not fit in two.

    Parameters
    ----------
    vocabulary
        Number of tokens.

    Returns
    -------
    int
        2 or 4.

    Examples
    --------
    >>> token_id_bytes(32_000), token_id_bytes(128_256)
    (2, 4)
    """
    return 2 if vocabulary <= 1 << 16 else 4


def dtype_bytes_of(config: Mapping[str, Any], where: str) -> int:
    """Bytes of a weight that is not quantised."""
    name = str(config.get("torch_dtype") or config.get("dtype") or "bfloat16").removeprefix("torch.")
    if name not in DTYPE_BYTES:
        raise InputError(f"expected one of {', '.join(DTYPE_BYTES)}", where=where, field="torch_dtype", value=name)
    return DTYPE_BYTES[name]
