"""Prompts as callers have them: text, or token ids in a list, a tuple, a numpy array or a torch tensor.

>>> import numpy as np
>>> token_ids(np.array([5, 6, 7]))
[5, 6, 7]
>>> is_batch(np.array([[5, 6], [7, 8]])), is_batch([5, 6]), is_batch("text"), is_batch(["text"])
(True, False, False, True)
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from helix_kit.errors import InputError

Prompt = str | Sequence[int]
"""Text or token ids. A one-dimensional array or tensor of whole numbers is accepted in place of a list of ids."""
EXPECTED = "expected text, or token ids in a list, an array or a tensor of one dimension"


def is_batch(prompts: Any) -> bool:
    """Whether `prompts` is several prompts. An empty list is a batch without prompts; an empty array is one prompt."""
    if isinstance(prompts, str):
        return False
    if _dimensions(prompts) is not None:
        return _dimensions(prompts) != 1 or any(isinstance(entry, str) for entry in prompts.tolist()[:1])
    entries = _listed(prompts)
    return not entries or isinstance(entries[0], str | list | tuple | range) or bool(_dimensions(entries[0]))


def prompts_of(batch: Any) -> list[Any]:
    """The prompts of a batch, one by one."""
    return batch.tolist() if _dimensions(batch) else _listed(batch)


def read_prompt(prompt: Prompt, encode: Callable[[str], list[int]], vocab_size: int) -> list[int]:
    """Token ids of a prompt; raises InputError for one that is empty, or has what the model cannot read."""
    if isinstance(prompt, str) and any("\ud800" <= character <= "\udfff" for character in prompt):
        raise InputError("expected text of whole characters; it has half a surrogate pair", field="prompt")
    ids = encode(prompt) if isinstance(prompt, str) else token_ids(prompt)
    if not ids:
        raise InputError("expected at least one token", field="prompt", value=prompt if prompt == "" else ids)
    for token in ids:
        if not 0 <= token < vocab_size:
            raise InputError(f"expected token ids from 0 to {vocab_size - 1}", field="prompt", value=token)
    return ids


def token_ids(prompt: Any) -> list[int]:
    """The ids of a prompt that is not text, as Python's own numbers.

    Raises InputError for anything that is not a sequence of whole numbers. Whether the numbers are tokens of the model
    is for the caller to check.
    """
    if _dimensions(prompt) not in (None, 1):
        raise InputError(EXPECTED, field="prompt", value=f"{type(prompt).__name__} of shape {tuple(prompt.shape)}")
    entries = _listed(prompt)
    if _dimensions(prompt) is not None:
        entries = prompt.tolist()
    ids = []
    for entry in entries:
        # bool counts as a whole number in Python, and numpy's bool used to.
        if type(entry).__name__ in ("bool", "bool_") or str(getattr(entry, "dtype", "")).endswith("bool"):
            raise InputError("expected token ids, which are whole numbers", field="prompt", value=entry)
        try:
            ids.append(operator.index(entry))
        except TypeError:
            raise InputError("expected token ids, which are whole numbers", field="prompt", value=entry) from None
    return ids


def _dimensions(value: Any) -> int | None:
    """Dimensions of an array or tensor; None for anything else."""
    dimensions = getattr(value, "ndim", None)
    return dimensions if isinstance(dimensions, int) and hasattr(value, "tolist") else None


def _listed(value: Any) -> list[Any]:
    if isinstance(value, bytes | bytearray):
        raise InputError(EXPECTED, field="prompt", value=value)
    if isinstance(value, Mapping) or hasattr(value, "input_ids"):
        # What a tokenizer of transformers returns; it may hold padding, which only its caller can leave out.
        raise InputError(f"{EXPECTED}: such as its `input_ids`", field="prompt", value=type(value).__name__)
    try:
        return list(value)
    except TypeError:
        raise InputError(EXPECTED, field="prompt", value=value) from None
