"""No field of a request is ignored: the field list of OpenAI's own client is the oracle."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("openai")

from openai.types import completion_create_params as completion_params
from openai.types.chat import completion_create_params as chat_params
from pydantic import ValidationError

from helix_kit.runtime.api.fields import ACCEPTED, CHAT_NEUTRAL, COMPLETION_NEUTRAL
from helix_kit.runtime.api.schema import ChatRequest, CompletionRequest

GUIDE = Path(__file__).parents[3] / "docs" / "guide" / "http-api.md"
BODIES = {
    CompletionRequest: {"prompt": "w5"},
    ChatRequest: {"messages": [{"role": "user", "content": "w5"}]},
}


def published(*params: Any) -> set[str]:
    """Names of the fields in the client's typed dictionaries."""
    return {name for param in params for name in param.__annotations__}


PUBLISHED = {
    CompletionRequest: published(
        completion_params.CompletionCreateParamsNonStreaming, completion_params.CompletionCreateParamsStreaming
    ),
    ChatRequest: published(chat_params.CompletionCreateParamsNonStreaming, chat_params.CompletionCreateParamsStreaming),
}


@pytest.mark.parametrize("endpoint", BODIES)
def test_each_published_field_is_in_the_table_once(endpoint: type) -> None:
    names = PUBLISHED[endpoint]
    assert {"n", "stop", "stream", "temperature"} < names
    for name in names:
        places = [name in endpoint.model_fields, name in ACCEPTED, name in endpoint.neutral]
        assert sum(places) == 1, name


@pytest.mark.parametrize("endpoint", BODIES)
def test_what_is_not_supported_is_refused_by_name_or_cannot_matter(endpoint: type) -> None:
    for name in (PUBLISHED[endpoint] | set(endpoint.neutral)) - set(endpoint.model_fields):
        body = {**BODIES[endpoint], name: {"asks": ["for something"]}}
        if name in ACCEPTED:
            endpoint(**body)
        else:
            with pytest.raises(ValidationError, match=f"{name} is not supported"):
                endpoint(**body)
        endpoint(**{**body, name: None})


@pytest.mark.parametrize("endpoint", BODIES)
def test_neutral_values_pass(endpoint: type) -> None:
    for name, values in endpoint.neutral.items():
        for value in values:
            endpoint(**BODIES[endpoint], **{name: value})


@pytest.mark.parametrize(
    "field",
    [
        {"best_of": 2},
        {"best_of": 1, "n": 2},
        {"store": 0},
        {"length_penalty": 1.0000001},
        {"bad_words": ["a"]},
        {"response_format": {"type": "json_object"}},
        {"response_format": {"type": "text", "strict": True}},
        {"tools": [{}]},
        {"top_logprobs": 1},
        {"guided_json": {}},
        {"structured_outputs": {"regex": "a"}},
        {"use_beam_search": True},
        {"skip_special_tokens": False},
        {"add_special_tokens": False},
        {"include_stop_str_in_output": True},
        {"parallel_tool_calls": False},
    ],
)
def test_near_neutral_values_do_not_pass(field: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=f"{next(iter(field))} is not supported"):
        CompletionRequest(prompt="w5", **field)


def test_best_of_as_many_as_are_returned_asks_for_nothing() -> None:
    assert CompletionRequest(prompt="w5", best_of=3, n=3).n == 3


@pytest.mark.parametrize("field", ["max_new_tokens", "temprature", "messages", "", "neutral", "__class__"])
def test_unknown_fields_are_refused(field: str) -> None:
    with pytest.raises(ValidationError, match="is not a known field"):
        CompletionRequest(prompt="w5", **{field: 1})


@pytest.mark.parametrize(
    "field",
    [
        {"prompt": "a\ud83d"},
        {"prompt": ["a", "\udc00b"]},
        {"user": "\ud83d"},
        {"metadata": {"a": [{"\ud83d": 1}]}},
        {"\ud83d": None},
        {"metadata": [float("nan")]},
        {"temperature": float("inf")},
    ],
)
def test_half_characters_and_infinite_numbers_are_refused_at_any_depth(field: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"half a surrogate pair|finite numbers"):
        CompletionRequest(**{"prompt": "w5", **field})


def test_a_field_of_one_endpoint_is_refused_by_the_other() -> None:
    """Fields that only one endpoint supports: the other one refuses them by name, where OpenAI or vLLM has them."""
    chat, completion = set(ChatRequest.model_fields), set(CompletionRequest.model_fields)
    assert chat - completion == {
        "messages", "max_completion_tokens", "top_logprobs", "tools", "tool_choice", "documents", "chat_template_kwargs"
    }  # fmt: skip
    assert completion - chat == {"prompt", "echo"}
    assert set(COMPLETION_NEUTRAL) - set(CHAT_NEUTRAL) == chat - completion - {"messages", "max_completion_tokens"}
    assert set(CHAT_NEUTRAL) - set(COMPLETION_NEUTRAL) == {"echo"}


def test_the_guide_lists_each_field_where_it_belongs() -> None:
    _, _, supported, accepted, refused, _ = re.split(r"^## .*$", GUIDE.read_text(encoding="utf-8"), flags=re.MULTILINE)

    def listed(section: str) -> set[str]:
        cells = re.findall(r"^\| (`[^|]*) \|", section, flags=re.MULTILINE)
        return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}

    assert listed(supported) == set(CompletionRequest.model_fields) | set(ChatRequest.model_fields)
    assert listed(accepted) == set(ACCEPTED)
    both = set(CHAT_NEUTRAL) | set(COMPLETION_NEUTRAL)
    assert listed(refused) == both - set(CompletionRequest.model_fields) - set(ChatRequest.model_fields)
