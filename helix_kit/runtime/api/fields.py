"""What becomes of each field of a request: one table for OpenAI's fields and for the usual ones of other servers.

A field is one of these:

- *supported*: it is a field of the models in `helix_kit.runtime.api.schema`;
- *accepted* (`ACCEPTED`): no value of it can change the answer of this server;
- *refused* (`NEUTRAL`): it would change the answer, so that only its neutral values pass, which ask for nothing;
- *unknown*: refused, whatever its value. It may be a misspelt field.

Null is neutral for every field: OpenAI's API reads it as a field that was not sent.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic_core import PydanticCustomError

UNSUPPORTED = "unsupported_parameter"
UNKNOWN = "unknown_parameter"
INVALID = "invalid_value"

ACCEPTED: dict[str, str] = {
    "user": "names the end user",
    "safety_identifier": "names the end user",
    "metadata": "is for the caller's records; nothing is stored here",
    "request_id": "names the request",
    "service_tier": "there is one tier",
    "priority": "orders requests; all of them are served in order of arrival",
    "prompt_cache_key": "is a hint for a prefix cache; ours takes none",
    "prompt_cache_options": "is a hint for a prefix cache; ours takes none",
    "prompt_cache_retention": "is a hint for a prefix cache; ours takes none",
    "cache_salt": "separates callers in a prefix cache; all share ours",
    "prediction": "can make an answer faster; it never changes it",
}
"""Fields that cannot change the answer, and why."""

_OFF = (False,)
NEUTRAL: dict[str, tuple[Any, ...]] = {
    # OpenAI
    "audio": (),
    "best_of": (),  # `check_fields` also accepts the value of n
    "function_call": ("none", "auto"),
    "functions": ([],),
    "modalities": (["text"],),
    "moderation": (),
    "parallel_tool_calls": (True,),
    "reasoning_effort": (),
    "response_format": ({"type": "text"},),
    "store": _OFF,
    "suffix": ("",),
    "verbosity": ("medium",),
    "web_search_options": (),
    # vLLM and others
    "add_generation_prompt": (True,),
    "allowed_token_ids": (),
    "bad_words": ([],),
    "chat_template": (),
    "continue_final_message": _OFF,
    "early_stopping": _OFF,
    "guided_choice": (),
    "guided_decoding_backend": (),
    "guided_grammar": (),
    "guided_json": (),
    "guided_regex": (),
    "guided_whitespace_pattern": (),
    "include_reasoning": (True,),
    "include_stop_str_in_output": _OFF,
    "kv_transfer_params": (),
    "length_penalty": (1,),
    "logits_processors": ([],),
    "media_io_kwargs": (),
    "mm_processor_kwargs": (),
    "prompt_embeds": (),
    "repetition_detection": (),
    "return_token_ids": _OFF,
    "return_tokens_as_token_ids": _OFF,
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "structured_outputs": (),
    "thinking_token_budget": (),
    "use_beam_search": _OFF,
    "vllm_xargs": ({},),
}
"""Fields that would change the answer, with the values that pass besides null."""

COMPLETION_NEUTRAL: dict[str, tuple[Any, ...]] = {
    **NEUTRAL,
    "add_special_tokens": (True,),
    "chat_template_kwargs": ({},),
    "documents": ([],),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
}
CHAT_NEUTRAL: dict[str, tuple[Any, ...]] = {**NEUTRAL, "add_special_tokens": _OFF, "echo": _OFF}


def check_fields(data: Mapping[Any, Any], supported: Iterable[str], neutral: Mapping[str, tuple[Any, ...]]) -> None:
    """Raise PydanticCustomError for a field that is refused or unknown, and for text or a number that is not valid.

    Parameters
    ----------
    data
        The body of a request.
    supported
        Names of the fields that the endpoint supports.
    neutral
        The refused fields of the endpoint, with the values that pass.
    """
    known = set(supported)
    for name, value in data.items():
        check_values(name, value)
        if name in known or name in ACCEPTED:
            continue
        if name not in neutral:
            raise PydanticCustomError(UNKNOWN, "{name} is not a known field", {"name": name})
        if value is None or any(_same(value, allowed) for allowed in neutral[name]):
            continue
        if name == "best_of" and _same(value, data.get("n") or 1):
            continue
        raise PydanticCustomError(UNSUPPORTED, "{name} is not supported", {"name": name})


def check_values(name: str, value: Any) -> None:
    """Refuse half a surrogate pair in a text (or in a field's name), and NaN and infinity, at any depth of a field."""
    rest = [name, value]
    while rest:
        item = rest.pop()
        if isinstance(item, str) and any("\ud800" <= character <= "\udfff" for character in item):
            shown = name.encode("utf-8", "backslashreplace").decode()
            message = "{name}: expected text of whole characters; it has half a surrogate pair"
            raise PydanticCustomError(INVALID, message, {"name": shown})
        if isinstance(item, float) and not math.isfinite(item):
            raise PydanticCustomError(INVALID, "{name}: expected finite numbers", {"name": name})
        if isinstance(item, dict):
            rest += [*item.keys(), *item.values()]
        elif isinstance(item, list):
            rest += item


def _same(value: Any, other: Any) -> bool:
    # False equals 0 in Python, but logprobs = 0 asks for something, and logprobs = false does not.
    return isinstance(value, bool) == isinstance(other, bool) and bool(value == other)
