"""Bodies of requests: what is accepted, what is refused, and the options that the engine gets."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

pytest.importorskip("fastapi")

from helix_kit.runtime import GenerationOptions
from helix_kit.runtime.api.schema import ChatRequest, CompletionRequest
from helix_kit.runtime.worker.sampling_params import SamplingParams


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [("w5", ["w5"]), ([5, 6], [[5, 6]]), (["w5", "w6"], ["w5", "w6"]), ([[5], [6, 7]], [[5], [6, 7]])],
)
def test_one_prompt_or_several(prompt: Any, prompts: list) -> None:
    assert CompletionRequest(prompt=prompt).prompts == prompts


@pytest.mark.parametrize(("stop", "stops"), [(None, ()), ("", ()), ("a", ("a",)), (["a", "b"], ("a", "b"))])
def test_stop_strings(stop: Any, stops: tuple[str, ...]) -> None:
    assert CompletionRequest(prompt="w5", stop=stop).stops == stops


def test_a_request_with_a_seed_has_a_seed_for_each_choice() -> None:
    body = CompletionRequest(prompt="w5", seed=7, temperature=0.5, top_k=3, n=16)
    seeds = [body.sampling(choice)["seed"] for choice in range(16)]
    assert seeds == [body.sampling(choice)["seed"] for choice in range(16)]
    assert seeds[0] == 7
    assert len(set(seeds)) == 16
    assert not set(seeds) & {CompletionRequest(prompt="w5", seed=seed).sampling(0)["seed"] for seed in range(8, 99)}
    assert (body.sampling(0)["temperature"], body.sampling(0)["top_k"]) == (0.5, 3)


def test_every_seed_of_64_bits_is_one_of_the_engine() -> None:
    for seed in (-(1 << 63), -7, 0, (1 << 63) - 1):
        for choice in range(3):
            options = CompletionRequest(prompt="w5", seed=seed).sampling(choice)
            assert 0 <= SamplingParams(seed=options["seed"]).seed < 1 << 63
    minus, plus = (CompletionRequest(prompt="w5", seed=seed).sampling(0) for seed in (-7, 7))
    assert minus != plus


def test_without_a_seed_each_choice_of_each_request_is_random() -> None:
    body = CompletionRequest(prompt="w5")
    options = [body.sampling(0) for _ in range(100)]
    assert len({option.pop("seed") for option in options}) == 100
    assert options[0] == {"temperature": 1.0, "top_k": 0, "stop": (), "logit_bias": {}, "logprobs": None}
    assert GenerationOptions(**options[0]) == GenerationOptions(temperature=1.0)
    assert CompletionRequest(prompt="w5", top_k=-1).sampling(0)["top_k"] == 0


def test_messages_become_role_and_text() -> None:
    parts = [{"type": "text", "text": "a "}, {"type": "text", "text": "b"}]
    body = ChatRequest(messages=[{"role": "developer", "content": "be kind"}, {"role": "user", "content": parts}])
    assert [m.plain() for m in body.messages] == [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "a b"},
    ]


CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": [1]}'}}


def test_tool_messages_are_passed_on_whole() -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    result = {"role": "tool", "tool_call_id": "1", "content": "w6"}
    called, said = (m.plain() for m in ChatRequest(messages=[call, result]).messages)
    function = {"name": "f", "arguments": {"x": [1]}}
    assert called == {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": "1", "type": "function", "function": function}],
    }
    assert said == result


def test_an_answer_can_be_sent_back_as_the_client_has_it() -> None:
    from openai.types.chat import ChatCompletionMessage

    answer = ChatCompletionMessage(role="assistant", content="w5", annotations=[]).model_dump()
    assert ChatRequest(messages=[answer]).messages[0].plain() == {"role": "assistant", "content": "w5"}


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": None},
        {"role": "user"},
        {"role": "assistant", "content": None},
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "user", "content": "w5", "tool_calls": [CALL]},
        {"role": "tool", "content": "w5"},
        {"role": "user", "content": "w5", "tool_call_id": "1"},
        {"role": "tool", "tool_call_id": "1", "content": None},
        {"role": "assistant", "content": "w5", "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "assistant", "content": "w5", "refusal": "no"},
        {"role": "assistant", "content": "w5", "audio": {"id": "1"}},
        {"role": "function", "name": "f", "content": "w5"},
        {"role": "user", "content": "w5", "unknown": 1},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]},
        {"role": "assistant", "tool_calls": [{**CALL, "type": "custom"}]},
        {"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "f", "arguments": "[1]"}}]},
        {"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "f", "arguments": "{"}}]},
    ],
)
def test_what_a_message_cannot_say_here_is_refused(message: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ChatRequest(messages=[message])


def test_one_limit_of_an_answer() -> None:
    messages = [{"role": "user", "content": "w5"}]
    assert ChatRequest(messages=messages, max_tokens=4).asked_tokens == ("max_tokens", 4)
    assert ChatRequest(messages=messages, max_completion_tokens=4, max_tokens=4).asked_tokens[1] == 4
    with pytest.raises(ValidationError, match="max_completion_tokens"):
        ChatRequest(messages=messages, max_completion_tokens=4, max_tokens=5)


def test_each_sampling_field_reaches_the_engine() -> None:
    sent = {
        "temperature": 0.3, "top_p": 0.8, "top_k": 7, "min_p": 0.1, "presence_penalty": 0.5, "frequency_penalty": -0.5,
        "repetition_penalty": 1.2, "min_tokens": 3, "stop_token_ids": [5, 6], "ignore_eos": True,
    }  # fmt: skip
    for body in (
        CompletionRequest(prompt="w5", seed=4, logit_bias={"7": -3, "0": 2.5}, stop="a", logprobs=2, **sent),
        ChatRequest(messages=[{"role": "user", "content": "w5"}], seed=4, logit_bias={"7": -3, "0": 2.5}, stop="a",
                    logprobs=True, top_logprobs=2, **sent),
    ):  # fmt: skip
        expected = {**sent, "seed": 4, "logit_bias": {7: -3, 0: 2.5}, "stop": ("a",), "logprobs": 2}
        assert body.sampling(0) == expected
        GenerationOptions(**expected)


@pytest.mark.parametrize(
    ("fields", "answer", "prompt"),
    [
        ({}, None, None),
        ({"logprobs": False}, None, None),
        ({"logprobs": 0}, 0, None),
        ({"logprobs": 3, "echo": True}, 3, 3),
        ({"logprobs": 3, "echo": True, "prompt_logprobs": 5}, 3, 5),
        ({"echo": True}, None, None),
        ({"echo": True, "max_tokens": 0}, None, 0),
        ({"prompt_logprobs": 2}, None, 2),
    ],
)
def test_which_log_probabilities_are_asked_of_the_engine(fields: dict, answer: int | None, prompt: int | None) -> None:
    body = CompletionRequest(prompt="w5", **fields)
    assert (body.wanted_logprobs, body.engine_prompt_logprobs) == (answer, prompt)


def test_tools_are_passed_on_as_they_were_sent() -> None:
    messages = [{"role": "user", "content": "w5"}]
    parameters = {"type": "object", "properties": {"z": {"type": "string"}, "a": {"type": "number"}}}
    tool = {"type": "function", "function": {"name": "f", "description": "d", "parameters": parameters}}
    strict = {"type": "function", "function": {**tool["function"], "strict": False}}
    assert ChatRequest(messages=messages, tools=[strict]).plain_tools == [tool]
    assert list(
        ChatRequest(messages=messages, tools=[tool]).plain_tools[0]["function"]["parameters"]["properties"]
    ) == ["z", "a"]
    for none in ({"tools": []}, {"tools": None}, {"tools": [tool], "tool_choice": "none"}):
        assert ChatRequest(messages=messages, **none).plain_tools is None
