"""How many tokens a model's positions reach, from its config.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from helix_kit.errors import InputError
from helix_kit.hf_config.fields import optional

_LENGTHENING = ("linear", "dynamic", "yarn")
"""Rotary variants whose factor multiplies the context. Of the others (llama3, longrope) ``max_position_embeddings`` is
the lengthened context already."""
_COUNTED_ALREADY = ("gemma3", "gemma3_text")
"""Families whose ``max_position_embeddings`` includes the factor of their linear scaling."""


def read_context_tokens(config: Mapping[str, Any], where: str, *, default: int | None = None) -> int | None:
    """Tokens that prompt and answer may have together: what the positions were trained, or scaled, for.

    That is ``max_position_embeddings``, times the factor of a linear or dynamic scaling. With YaRN it is the context
    before scaling (``original_max_position_embeddings``) times the factor, as in vLLM. A YaRN that leaves out the
    original length scales ``max_position_embeddings``, as in transformers.

    Parameters
    ----------
    config
        The content of the file, of a decoder.
    where
        Named in errors.
    default
        ``max_position_embeddings`` where the config has none.

    Returns
    -------
    int or None
        None where neither config nor `default` says how many.

    Raises
    ------
    InputError
        A length or a factor is no positive number.

    Examples
    --------
    >>> yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
    >>> read_context_tokens({"max_position_embeddings": 40960, "rope_scaling": yarn}, "config.json")
    131072
    >>> read_context_tokens({"max_position_embeddings": 2048}, "config.json")
    2048
    """
    longest = optional(config, where, "max_position_embeddings") or default
    if str(config.get("model_type")) in _COUNTED_ALREADY:
        return longest
    for field in ("rope_parameters", "rope_scaling"):
        rope = config.get(field)
        if not isinstance(rope, Mapping):
            continue
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind not in _LENGTHENING:
            continue
        original = optional(rope, where, "original_max_position_embeddings") if kind == "yarn" else 0
        factor = rope.get("factor")
        if factor is None:  # transformers then takes longest / original
            return longest
        if isinstance(factor, bool) or not isinstance(factor, int | float) or not 1 <= factor < float("inf"):
            raise InputError("expected a number of at least 1", where=where, field=f"{field}.factor", value=factor)
        base = original or longest
        return None if base is None else round(base * factor)
    return longest
