"""What the events of a stream say: text that came, why it ended, and how many tokens the server counts.

>>> reader = EventReader()
>>> reader.feed(b'data: {"choices": [{"text": " Paris"}]}\\n\\ndata: [DO')
[{'choices': [{'text': ' Paris'}]}]
>>> reader.feed(b"NE]\\n\\n"), reader.is_done
([], True)
"""

from __future__ import annotations

import json
from typing import Any

MAX_LINE_BYTES = 1 << 20


class StreamError(Exception):
    """A stream that holds what is no event, or an error of the server."""


class EventReader:
    """Server-sent events from pieces of bytes."""

    def __init__(self) -> None:
        self._rest = b""
        self.is_done = False
        """Whether ``[DONE]`` has come."""

    def feed(self, piece: bytes) -> list[dict[str, Any]]:
        """The events that are complete by now."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        if len(self._rest) > MAX_LINE_BYTES:
            raise StreamError("a line without an end")
        events = []
        for line in lines:
            text = line.strip()
            if not text or text.startswith((b":", b"event:", b"id:", b"retry:")):
                continue
            if not text.startswith(b"data:"):
                raise StreamError(f"not an event: {text[:60]!r}")
            data = text[5:].strip()
            if data == b"[DONE]":
                self.is_done = True
                continue
            try:
                event = json.loads(data)
            except ValueError:
                raise StreamError(f"an event that is no JSON: {data[:60]!r}") from None
            if not isinstance(event, dict):
                raise StreamError(f"an event that is no JSON object: {data[:60]!r}")
            if "error" in event:
                raise StreamError(f"error in the stream: {error_text(event)}")
            events.append(event)
        return events


def has_text(event: dict[str, Any]) -> bool:
    """Whether the event brings text of the answer, or of its reasoning."""
    for choice in _choices(event):
        delta = choice.get("delta")
        parts = delta if isinstance(delta, dict) else choice
        if any(parts.get(name) for name in ("text", "content", "reasoning_content", "reasoning", "tool_calls")):
            return True
    return False


def finish_reason(event: dict[str, Any]) -> str | None:
    """Why the answer ends, if the event says so."""
    return next((str(c["finish_reason"]) for c in _choices(event) if c.get("finish_reason")), None)


def usage(event: dict[str, Any]) -> tuple[int, int] | None:
    """(prompt tokens, tokens of the answer) as the server counts them, if the event says so."""
    found = event.get("usage")
    if not isinstance(found, dict):
        return None
    counts = [found.get("prompt_tokens"), found.get("completion_tokens")]
    return (counts[0], counts[1]) if all(isinstance(c, int) and c >= 0 for c in counts) else None  # type: ignore[return-value]


def error_text(body: dict[str, Any]) -> str:
    """The message of an error in OpenAI's form or another one."""
    error = body.get("error", body)
    message = error.get("message", error) if isinstance(error, dict) else error
    return " ".join(str(message).split())[:200]


def spread(times_s: list[float], tokens: int) -> list[float]:
    """A time for each of `tokens` tokens, from the times of the events that brought them.

    The first token came with the first event and the last one with the last. In between, tokens are spread evenly over
    the events: several tokens of one event have one time.

    >>> spread([1.0, 2.0, 3.0], 5)
    [1.0, 2.0, 2.0, 3.0, 3.0]
    """
    if not times_s or tokens < 1 or tokens == len(times_s):
        return times_s[: max(tokens, 0)] if tokens < 1 else list(times_s)
    if tokens == 1:
        return [times_s[0]]
    last = len(times_s) - 1
    return [times_s[-(-i * last // (tokens - 1))] for i in range(tokens)]


def _choices(event: dict[str, Any]) -> list[dict[str, Any]]:
    found = event.get("choices")
    return [c for c in found if isinstance(c, dict)] if isinstance(found, list) else []
