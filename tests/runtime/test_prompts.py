"""Which values count as one prompt, which as several, and which are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from helix_kit.errors import InputError
from helix_kit.runtime.prompts import is_batch, prompts_of, read_prompt, token_ids

torch = pytest.importorskip("torch")

SAME = [
    [3, 4, 5],
    (3, 4, 5),
    range(3, 6),
    np.array([3, 4, 5]),
    np.array([3, 4, 5], dtype=np.uint8),
    [np.int64(3), np.int32(4), 5],
    torch.tensor([3, 4, 5]),
    torch.tensor([3, 4, 5], dtype=torch.int32),
    [torch.tensor(3), 4, torch.tensor(5)],
]


@pytest.mark.parametrize("prompt", SAME, ids=repr)
def test_ids_become_plain_numbers(prompt: Any) -> None:
    assert not is_batch(prompt)
    ids = token_ids(prompt)
    assert ids == [3, 4, 5] and {type(token) for token in ids} == {int}


@pytest.mark.parametrize(
    "prompts",
    [[[3, 4], [5, 6]], np.array([[3, 4], [5, 6]]), torch.tensor([[3, 4], [5, 6]]), [np.array([3, 4]), (5, 6)]],
    ids=repr,
)
def test_a_batch_is_its_prompts(prompts: Any) -> None:
    assert is_batch(prompts)
    assert [token_ids(prompt) for prompt in prompts_of(prompts)] == [[3, 4], [5, 6]]


def test_texts() -> None:
    assert not is_batch("w1 w2") and is_batch(["w1", "w2"]) and is_batch(("w1",))
    assert prompts_of(np.array(["w1", "w2"])) == ["w1", "w2"] and is_batch(np.array(["w1", "w2"]))


def test_nothing_is_no_prompt_as_an_array_and_no_prompts_as_a_list() -> None:
    assert is_batch([]) and prompts_of([]) == []
    assert not is_batch(np.array([])) and token_ids(np.array([])) == []


@pytest.mark.parametrize(
    "prompt",
    [
        [1.0, 2.0],
        np.array([1.5]),
        torch.tensor([1.0]),
        [True],
        np.array([True]),
        [np.True_],
        [torch.tensor(True)],
        ["w1"],
        [None],
        np.array(3),
        np.array([[1, 2]]),
        torch.tensor([[1, 2]]),
        {"input_ids": [1]},
        b"w1",
        None,
        3,
    ],
    ids=repr,
)
def test_what_is_not_whole_numbers_is_refused(prompt: Any) -> None:
    with pytest.raises(InputError, match=r"prompt.*: expected .*token ids"):
        token_ids(prompt)


def encode(text: str) -> list[int]:
    return [ord(character) for character in text]


def test_text_is_encoded_and_ids_stay() -> None:
    assert read_prompt("az", encode, 128) == [97, 122]
    assert read_prompt(np.array([5, 127]), encode, 128) == [5, 127]


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("", "at least one token"),
        ([], "at least one token"),
        ("a\ud83d", "half a surrogate pair"),
        ([5, 128], "128: expected token ids from 0 to 127"),
        ([-1], "-1: expected token ids from 0 to 127"),
        ("\u00e9", "233: expected token ids from 0 to 127"),
    ],
)
def test_what_the_model_cannot_read_is_refused(prompt: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_prompt(prompt, encode, 128)
