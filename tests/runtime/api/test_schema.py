"""Bodies of requests: what is accepted, what is refused, and the options that the engine gets."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

pytest.importorskip("fastapi")

from helix_kit.runtime.api.schema import ChatRequest, CompletionRequest


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [("w5", ["w5"]), ([5, 6], [[5, 6]]), (["w5", "w6"], ["w5", "w6"]), ([[5], [6, 7]], [[5], [6, 7]])],
)
def test_one_prompt_or_several(prompt: Any, prompts: list) -> None:
    assert CompletionRequest(prompt=prompt).prompts == prompts


@pytest.mark.parametrize(("stop", "stops"), [(None, ()), ("", ()), ("a", ("a",)), (["a", "b"], ("a", "b"))])
def test_stop_strings(stop: Any, stops: tuple[str, ...]) -> None:
    assert CompletionRequest(prompt="w5", stop=stop).stops == stops


@pytest.mark.parametrize(
    "field",
    [{"logprobs": 0}, {"logprobs": True}, {"best_of": 2}, {"suffix": "x"}, {"tools": [{}]}, {"logit_bias": {"5": 1}}],
)
def test_what_would_change_the_answer_is_refused(field: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=f"{next(iter(field))} is not supported"):
        CompletionRequest(prompt="w5", **field)


@pytest.mark.parametrize("field", [{"logprobs": None}, {"logprobs": False}, {"best_of": 1}, {"presence_penalty": 0.0}])
def test_what_changes_nothing_is_accepted(field: dict[str, Any]) -> None:
    assert CompletionRequest(prompt="w5", **field).prompts == ["w5"]


def test_each_choice_has_a_seed_of_its_own() -> None:
    body = CompletionRequest(prompt="w5", seed=-7, temperature=0.5, top_k=3, n=2)
    assert [body.sampling(1.0, choice)["seed"] for choice in range(2)] == [7, 8]
    assert (body.sampling(1.0, 0)["temperature"], body.sampling(1.0, 0)["top_k"]) == (0.5, 3)
    unsaid = CompletionRequest(prompt="w5").sampling(1.0, 0)
    assert unsaid == {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "stop": (), "ignore_eos": False}


def test_messages_become_role_and_text() -> None:
    parts = [{"type": "text", "text": "a "}, {"type": "text", "text": "b"}]
    body = ChatRequest(messages=[{"role": "developer", "content": "be kind"}, {"role": "user", "content": parts}])
    assert [m.plain() for m in body.messages] == [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "a b"},
    ]
