"""A conversation as the tokens of a prompt; what the model's chat template would leave out is refused."""

from __future__ import annotations

from typing import Any

from helix_kit.errors import InputError
from helix_kit.runtime.api.errors import RefusedError
from helix_kit.runtime.api.schema import ChatRequest
from helix_kit.runtime.engine import Engine
from helix_kit.runtime.text import TextCodec

_Conversation = tuple[list[dict[str, Any]], dict[str, Any]]
"""Messages, and what else the template gets."""


RESERVED = frozenset({"messages", "tools", "documents", "add_generation_prompt"})
"""Names that a request gives to the template in fields of their own."""


def prompt_ids(engine: Engine, body: ChatRequest) -> list[int]:
    """Token ids of the conversation in the model's chat format.

    Raises
    ------
    InputError
        When the model has no chat template, or its template refuses the messages.
    RefusedError
        When the template does not write tools, their calls or results, or documents, or does not read a variable.
    """
    plain = [message.plain() for message in body.messages]
    given: dict[str, Any] = {
        "tools": body.plain_tools,
        "documents": body.documents or None,
        "variables": body.chat_template_kwargs,
    }
    codec = engine.codec
    for name in body.chat_template_kwargs or {}:
        if name in RESERVED or name not in codec.chat_variables(with_tools=given["tools"] is not None):
            raise _not_written(f"chat_template_kwargs.{name}", "read", "chat_template_kwargs")
    ids = engine.chat_ids(plain, **given)
    for field in ("tools", "documents"):
        if given[field] and _same_text(codec, (plain, given), (plain, {**given, field: None})):
            raise _not_written(field, "write", field)
    for index, message in enumerate(plain):
        changed = _changed(message)
        if changed is not None:
            others = [*plain[:index], changed, *plain[index + 1 :]]
            if _same_text(codec, (plain, given), (others, given)):
                field = "tool_calls" if "tool_calls" in message else "content"
                raise _not_written(f"messages[{index}].{field}", "write", "messages")
    return ids


def _not_written(place: str, verb: str, param: str) -> RefusedError:
    what = "it into the prompt" if verb == "write" else "it"
    return RefusedError(
        f"{place}: the model's chat template does not {verb} {what}", code="unsupported_value", param=param
    )


def _changed(message: dict[str, Any]) -> dict[str, Any] | None:
    """The message with another call or another result of a tool; None when it has neither."""
    if "tool_calls" in message:
        return {key: value for key, value in message.items() if key != "tool_calls"}
    if message["role"] == "tool":
        return {**message, "content": message["content"] + "0"}
    return None


def _same_text(codec: TextCodec, first: _Conversation, second: _Conversation) -> bool:
    """Whether the template makes the same prompt of both; if it refuses the other, it has read the difference."""
    try:
        return codec.render_chat(first[0], **first[1]) == codec.render_chat(second[0], **second[1])
    except InputError:
        return False
