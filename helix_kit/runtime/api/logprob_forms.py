"""Log-probabilities in the forms of the two endpoints, and prompt_logprobs in that of vLLM."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence
from typing import Any

from helix_kit.runtime.logprobs import TokenLogprobs
from helix_kit.runtime.text import TextCodec

LOWEST = -9999.0
"""Stands for minus infinity, which JSON does not have."""

Scored = tuple[int, TokenLogprobs | None]
"""A token and its log-probabilities; None for the first token of a prompt."""


class CompletionLogprobs:
    """The field ``logprobs`` of one choice of a completion, piece by piece.

    Parameters
    ----------
    codec
        The model's tokenizer.
    text
        The prompt's text where it is part of the answer (`echo`), else an empty one.
    """

    def __init__(self, codec: TextCodec, text: str) -> None:
        self._codec, self._text = codec, text
        self._offset = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def form(self, tokens: Iterable[Scored]) -> dict[str, list[Any]]:
        """The next tokens."""
        body: dict[str, list[Any]] = {"text_offset": [], "token_logprobs": [], "tokens": [], "top_logprobs": []}
        text_of = self._codec.token_bytes.text
        for token_id, scored in tokens:
            body["text_offset"].append(self._offset)
            body["tokens"].append(text_of(token_id))
            body["token_logprobs"].append(None if scored is None else finite(scored.logprob))
            body["top_logprobs"].append(None if scored is None else self._alternatives(scored))
            self._advance(token_id)
        return body

    def _alternatives(self, scored: TokenLogprobs) -> dict[str, float]:
        """The likeliest tokens by their text, and the token itself. Of two with one text the likelier one counts."""
        found: dict[str, float] = {}
        for token_id, logprob in (*scored.top, (scored.token_id, scored.logprob)):
            found.setdefault(self._codec.token_bytes.text(token_id), finite(logprob))
        return found

    def _advance(self, token_id: int) -> None:
        if not self._codec.has_text(token_id):
            return
        text = self._decoder.decode(self._codec.token_bytes.of(token_id) or b"")
        if self._offset == 0 and self._text and not self._text.startswith(text):
            text = text.removeprefix(" ")  # many tokenizers drop the first space of a text
        self._offset += len(text)


def chat_form(codec: TextCodec, tokens: Iterable[TokenLogprobs]) -> dict[str, Any]:
    """The field ``logprobs`` of a choice of a chat, or of a piece of it."""

    def entry(token_id: int, logprob: float) -> dict[str, Any]:
        data = codec.token_bytes.of(token_id)
        return {
            "token": codec.token_bytes.text(token_id),
            "logprob": finite(logprob),
            "bytes": None if data is None else list(data),
        }

    content = [
        {**entry(token.token_id, token.logprob), "top_logprobs": [entry(*alternative) for alternative in token.top]}
        for token in tokens
    ]
    return {"content": content, "refusal": None}


def prompt_form(codec: TextCodec, tokens: Sequence[TokenLogprobs | None]) -> list[dict[str, Any] | None]:
    """The field ``prompt_logprobs``: for each token of the prompt, by id, the likeliest ones and itself."""

    def entries(token: TokenLogprobs) -> dict[str, Any]:
        found = {
            str(token_id): {"logprob": finite(logprob), "rank": rank, "decoded_token": codec.token_bytes.text(token_id)}
            for rank, (token_id, logprob) in enumerate(token.top, 1)
        }
        own = {
            "logprob": finite(token.logprob),
            "rank": token.rank,
            "decoded_token": codec.token_bytes.text(token.token_id),
        }
        return {**found, str(token.token_id): own}

    return [None if one is None else entries(one) for one in tokens]


def finite(logprob: float) -> float:
    """A number that JSON has: minus infinity and NaN become `LOWEST`."""
    return logprob if logprob > LOWEST else LOWEST
