"""Readers of request files with texts: ShareGPT's conversations, vLLM's custom data sets, AIPerf's inputs.

Such files have texts in place of numbers of tokens, and mostly no times. The tokens of a text are estimated from its
length, and its requests arrive one a second, which a rate scales; both is noted. A measurement of a server sends the
texts themselves.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from helix_kit.errors import InputError

CHARACTERS_A_TOKEN = 4
"""Of English text in the usual vocabularies, as OpenAI's help pages say."""
DEFAULT_OUTPUT_TOKENS = 256
"""Of requests whose file does not say how long the answer is, as vLLM's ``--custom-output-len``."""


class TextRow(NamedTuple):
    """A request with a text: its time in s if the file has one, and what else the file says."""

    arrival_s: float | None
    input_tokens: int
    output_tokens: int | None
    session: str | None
    prompt: str


def format_of_texts(names: set[str]) -> str | None:
    """The name of the format that has these fields; None for a file of numbers."""
    if "conversations" in names:
        return "ShareGPT"
    if "turns" in names:
        return "AIPerf multi-turn"
    if "prompt" in names:
        return "vLLM custom"
    return "AIPerf single-turn" if names & {"text", "texts"} else None


def text_rows(name: str, where: str, entry: Mapping[str, Any]) -> Iterator[TextRow]:
    """The requests of an entry; InputError, with its place, for one that is not as the format demands."""
    if name == "ShareGPT":
        yield from _sharegpt(where, entry)
    elif name == "AIPerf multi-turn":
        yield from _turns(where, entry)
    else:
        field = "prompt" if name == "vLLM custom" else "text"
        text = entry.get(field)
        if text is None and isinstance(entry.get("texts"), list) and entry["texts"]:
            text = entry["texts"][0]
        output = entry.get("output_tokens", entry.get("output_length"))
        yield _row(where, field, text, output, _time(where, entry.get("timestamp")), entry.get("session_id"))


def _sharegpt(where: str, entry: Mapping[str, Any]) -> Iterator[TextRow]:
    """The first question and its answer, as vLLM's benchmark takes them; conversations of one turn are left out."""
    turns = entry["conversations"]
    if not isinstance(turns, list) or not all(
        isinstance(t, Mapping) and isinstance(t.get("value"), str) for t in turns
    ):
        raise InputError("expected turns with a text `value`", where=where, field="conversations")
    if len(turns) >= 2 and turns[0]["value"].strip() and turns[1]["value"].strip():
        session = entry.get("id")
        question, answer = turns[0]["value"], turns[1]["value"]
        yield TextRow(None, tokens_of(question), tokens_of(answer), None if session is None else str(session), question)


def _turns(where: str, entry: Mapping[str, Any]) -> Iterator[TextRow]:
    """Each turn of a session as a request; a turn's delay counts from the one before."""
    turns = entry["turns"]
    if not isinstance(turns, list) or not all(isinstance(t, Mapping) for t in turns):
        raise InputError("expected a list of objects", where=where, field="turns")
    at_s: float | None = None
    for number, turn in enumerate(turns):
        delay_s = _time(where, turn.get("delay"))
        at_s = (
            _time(where, turn.get("timestamp"))
            if "timestamp" in turn
            else None
            if at_s is None
            else at_s + (delay_s or 0)
        )
        output = turn.get("output_tokens", turn.get("output_length"))
        yield _row(where, f"turns[{number}].text", turn.get("text"), output, at_s, entry.get("session_id"))


def _row(where: str, field: str, text: Any, output: Any, at_s: float | None, session: Any) -> TextRow:
    if not isinstance(text, str) or not text.strip():
        raise InputError("expected a text", where=where, field=field, value=text)
    if output is not None and (isinstance(output, bool) or not isinstance(output, int) or output < 1):
        raise InputError("expected a whole number of tokens", where=where, field="output_tokens", value=output)
    return TextRow(at_s, tokens_of(text), output, None if session is None else str(session), text)


def _time(where: str, value: Any) -> float | None:
    """Seconds of AIPerf's milliseconds."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError("expected a number of milliseconds", where=where, field="timestamp", value=value)
    return value / 1e3


def tokens_of(text: str) -> int:
    """About how many tokens a text has.

    >>> tokens_of("What is the capital of France?")
    8
    """
    return max(1, math.ceil(len(text) / CHARACTERS_A_TOKEN))
