"""A conversation as the tokens of a prompt; what the model's chat template would leave out is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from helix_kit.errors import InputError
from helix_kit.runtime.api.errors import RefusedError
from helix_kit.runtime.api.schema import ChatMessage
from helix_kit.runtime.engine import Engine


def prompt_ids(engine: Engine, messages: Sequence[ChatMessage]) -> list[int]:
    """Token ids of the conversation in the model's chat format.

    Raises
    ------
    InputError
        When the model has no chat template, or its template refuses the messages.
    RefusedError
        When the template does not write calls of tools or their results.
    """
    plain = [message.plain() for message in messages]
    ids = engine.chat_ids(plain)
    for index, message in enumerate(plain):
        changed = _changed(message)
        if changed is not None and _same_text(engine, plain, [*plain[:index], changed, *plain[index + 1 :]]):
            field = "tool_calls" if "tool_calls" in message else "content"
            raise RefusedError(
                f"messages[{index}].{field}: the model's chat template does not write it into the prompt",
                code="unsupported_value",
                param="messages",
            )
    return ids


def _changed(message: dict[str, Any]) -> dict[str, Any] | None:
    """The message with another call or another result of a tool; None when it has neither."""
    if "tool_calls" in message:
        return {key: value for key, value in message.items() if key != "tool_calls"}
    if message["role"] == "tool":
        return {**message, "content": message["content"] + "0"}
    return None


def _same_text(engine: Engine, messages: list[dict[str, Any]], others: list[dict[str, Any]]) -> bool:
    """Whether the template makes the same prompt of both; if it refuses the others, it has read the difference."""
    try:
        return engine.codec.render_chat(messages) == engine.codec.render_chat(others)
    except InputError:
        return False
