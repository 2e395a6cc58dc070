"""Log-probabilities in OpenAI's two forms and in vLLM's, for a tokenizer of three tokens written by hand."""

from __future__ import annotations

import json

import pytest

from helix_kit.runtime.api.logprob_forms import CompletionLogprobs, chat_form, finite, prompt_form
from helix_kit.runtime.logprobs import TokenLogprobs

BYTES = {0: b" caf", 1: b"\xc3", 2: b"\xa9", 3: b" caf"}
"""Two halves of an e with an accent, and two tokens of one text. Token 9 has no text."""


class Codec:
    """A codec whose tokens are `BYTES`."""

    @property
    def token_bytes(self) -> Codec:
        return self

    def of(self, token_id: int) -> bytes | None:
        return BYTES.get(token_id)

    def text(self, token_id: int) -> str:
        data = BYTES.get(token_id)
        if data is None:
            return f"token_id:{token_id}"
        try:
            return data.decode()
        except UnicodeDecodeError:
            return f"bytes:\\x{data.hex()}"

    def has_text(self, token_id: int) -> bool:
        return token_id in BYTES


def scored(token_id: int, logprob: float = -0.5, top: tuple = ()) -> TokenLogprobs:
    return TokenLogprobs(token_id, logprob, 1, top)


def test_offsets_count_characters_of_the_text_so_far():
    """Half a character adds none; the second half adds one. A token without text adds none."""
    form = CompletionLogprobs(Codec(), "")
    first = form.form([(0, scored(0)), (1, scored(1))])
    then = form.form([(2, scored(2)), (9, scored(9)), (0, scored(0))])
    assert first["text_offset"] + then["text_offset"] == [0, 4, 4, 5, 5]
    assert then["tokens"] == ["bytes:\\xa9", "token_id:9", " caf"]


@pytest.mark.parametrize(("text", "offset"), [("café", 3), (" café", 4), ("", 4)])
def test_a_space_that_the_text_has_not_is_not_counted(text, offset):
    assert CompletionLogprobs(Codec(), text).form([(0, None), (1, None)])["text_offset"] == [0, offset]


def test_the_first_token_of_a_prompt_has_none():
    body = CompletionLogprobs(Codec(), "").form([(0, None)])
    assert body["token_logprobs"] == [None] and body["top_logprobs"] == [None]


def test_of_two_tokens_of_one_text_the_likelier_counts_and_the_token_itself_is_there():
    body = CompletionLogprobs(Codec(), "").form([(2, scored(2, -4.0, ((0, -0.1), (3, -2.0))))])
    assert body["top_logprobs"] == [{" caf": -0.1, "bytes:\\xa9": -4.0}]


def test_a_chat_has_bytes_beside_text():
    [entry] = chat_form(Codec(), [scored(1, -0.5, ((0, -0.1), (9, -3.0)))])["content"]
    assert (entry["token"], entry["bytes"]) == ("bytes:\\xc3", [0xC3])
    assert [(one["token"], one["bytes"]) for one in entry["top_logprobs"]] == [
        (" caf", [32, 99, 97, 102]), ("token_id:9", None),
    ]  # fmt: skip


def test_a_prompt_has_ranks_by_token():
    own = TokenLogprobs(2, -7.0, 12, ((0, -0.1), (1, -0.2)))
    none, entries = prompt_form(Codec(), [None, own])
    assert none is None
    assert {token: one["rank"] for token, one in entries.items()} == {"0": 1, "1": 2, "2": 12}
    assert entries["2"] == {"logprob": -7.0, "rank": 12, "decoded_token": "bytes:\\xa9"}


@pytest.mark.parametrize("logprob", [float("-inf"), float("nan"), -1e9])
def test_json_has_the_number(logprob):
    assert json.loads(json.dumps(finite(logprob), allow_nan=False)) == -9999.0
    assert finite(-3.5) == -3.5
