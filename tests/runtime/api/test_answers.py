"""Log-probabilities, echo and scores of prompts in the forms of OpenAI's API, as its own client reads them."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
openai = pytest.importorskip("openai")

from transformers import AutoModelForCausalLM  # noqa: E402

from helix_kit.runtime import Engine  # noqa: E402

PROMPT = [5, 6, 40, 41, 42, 43]
TEXT = "w5 w6 w40 w41 w42 w43"


@pytest.fixture(scope="module")
def expected(tiny_llama: Path):
    """Log-probabilities of transformers for the token after each of the given ones."""
    model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)

    def logprobs(ids: list[int]):
        with torch.inference_mode():
            return torch.log_softmax(model(torch.tensor([ids])).logits[0], -1)

    return logprobs


def near(value: float):
    return pytest.approx(float(value), abs=1e-4)


def test_a_completion_has_log_probabilities(client, engine: Engine, expected) -> None:
    options = {"model": "tiny", "max_tokens": 5, "temperature": 0.9, "seed": 4, "extra_body": {"ignore_eos": True}}
    got = client.completions.create(prompt=TEXT, logprobs=3, **options).choices[0]
    tokens = engine.generate(PROMPT, max_new_tokens=5, temperature=0.9, seed=4, ignore_eos=True).token_ids
    wanted = expected(PROMPT + tokens)[len(PROMPT) - 1 : -1]
    assert got.logprobs.tokens == [f" w{token}" for token in tokens]
    assert "".join(got.logprobs.tokens) == got.text
    assert got.logprobs.text_offset == [got.text.index(f" w{token}") for token in tokens]
    assert got.logprobs.token_logprobs == [near(row[token]) for row, token in zip(wanted, tokens)]
    for row, token, found in zip(wanted, tokens, got.logprobs.top_logprobs):
        best = {f" w{i}": near(row[i]) for i in [*row.topk(3).indices.tolist(), token]}
        assert found == best
    assert client.completions.create(prompt=TEXT, **options).choices[0].logprobs is None
    zero = client.completions.create(prompt=TEXT, logprobs=0, **options).choices[0].logprobs
    assert [list(found) for found in zero.top_logprobs] == [[f" w{token}"] for token in tokens]


@pytest.mark.parametrize("prompt", [TEXT, PROMPT], ids=["text", "ids"])
@pytest.mark.parametrize("max_tokens", [0, 1, 3])
def test_an_echo_scores_the_prompt(client, expected, prompt, max_tokens: int) -> None:
    options = {"model": "tiny", "temperature": 0, "extra_body": {"ignore_eos": True}}
    got = client.completions.create(prompt=prompt, max_tokens=max_tokens, echo=True, logprobs=1, **options)
    [choice] = got.choices
    assert (got.usage.prompt_tokens, got.usage.completion_tokens) == (6, max_tokens)
    assert choice.text.startswith(TEXT) and len(choice.text.split()) == 6 + max_tokens
    ids = [int(word.removeprefix("w")) for word in choice.text.split()]
    assert ids[:6] == PROMPT
    scores = choice.logprobs
    assert scores.token_logprobs[0] is None and scores.top_logprobs[0] is None
    wanted = expected(ids)
    assert scores.token_logprobs[1:] == [near(wanted[i, token]) for i, token in enumerate(ids[1:])]
    # Clients take a token for the likeliest one when its number is the best one's, bit by bit.
    greedy = [one == max(top.values()) for one, top in zip(scores.token_logprobs[1:], scores.top_logprobs[1:])]
    assert greedy == [int(wanted[i].argmax()) == token for i, token in enumerate(ids[1:])]
    assert [choice.text[at:].split()[0] for at in scores.text_offset] == choice.text.split()
    plain = client.completions.create(prompt=prompt, max_tokens=max_tokens, echo=True, **options).choices[0]
    assert (plain.text, plain.logprobs) == (choice.text, None)


def test_several_prompts_and_choices_are_echoed(client) -> None:
    got = client.completions.create(
        model="tiny", prompt=["w5 w6", "w40"], n=2, max_tokens=2, echo=True, logprobs=0, extra_body={"ignore_eos": True}
    )
    # A token that is drawn may have no text.
    assert all(c.text.startswith(p) for c, p in zip(got.choices, ["w5 w6"] * 2 + ["w40"] * 2, strict=True))
    assert [choice.logprobs.token_logprobs[0] for choice in got.choices] == [None] * 4


def same(one, other) -> bool:
    """Whether both are equal but for the last digits of numbers: in company, a step adds in another order."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return abs(one - other) < 1e-4 if isinstance(one, float) else one == other


def test_streams_have_the_same_log_probabilities(client) -> None:
    options = {"model": "tiny", "max_tokens": 8, "temperature": 0.7, "seed": 3, "extra_body": {"ignore_eos": True}}
    for more in ({"echo": True, "stop": ["w999"]}, {"n": 2}, {"echo": True, "max_tokens": 0}):
        whole = client.completions.create(prompt=TEXT, logprobs=2, **{**options, **more})
        chunks = list(client.completions.create(prompt=TEXT, logprobs=2, stream=True, **{**options, **more}))
        for choice in whole.choices:
            own = [chunk.choices[0] for chunk in chunks if chunk.choices[0].index == choice.index]
            assert "".join(chunk.text for chunk in own) == choice.text
            for field in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
                joined = [one for chunk in own if chunk.logprobs for one in getattr(chunk.logprobs, field)]
                assert same(joined, getattr(choice.logprobs, field))
    chat = {"messages": [{"role": "user", "content": "w31"}], "logprobs": True, "top_logprobs": 2}
    content = client.chat.completions.create(**chat, **options).choices[0].logprobs.content
    streamed = list(client.chat.completions.create(stream=True, **chat, **options))
    parts = [chunk.choices[0].logprobs for chunk in streamed]
    joined = [one.model_dump() for part in parts if part for one in part.content]
    assert same(joined, [one.model_dump() for one in content])


def test_a_chat_has_log_probabilities(client, engine: Engine, expected) -> None:
    options = {"model": "tiny", "max_tokens": 4, "temperature": 0, "extra_body": {"ignore_eos": True}}
    chat = {"messages": [{"role": "user", "content": "w31"}]}
    prompt = [9, 31, 7]
    tokens = engine.generate(prompt, max_new_tokens=4, ignore_eos=True).token_ids
    wanted = expected(prompt + tokens)[2:-1]
    content = (
        client.chat.completions.create(logprobs=True, top_logprobs=2, **chat, **options).choices[0].logprobs.content
    )
    assert [one.token for one in content] == [f" w{token}" for token in tokens]
    assert [bytes(one.bytes).decode() for one in content] == [one.token for one in content]
    assert [one.logprob for one in content] == [near(row[token]) for row, token in zip(wanted, tokens)]
    for row, one in zip(wanted, content):
        best = row.topk(2)
        assert [t.token for t in one.top_logprobs] == [f" w{i}" for i in best.indices.tolist()]
        assert [t.logprob for t in one.top_logprobs] == [near(value) for value in best.values]
    alone = client.chat.completions.create(logprobs=True, **chat, **options).choices[0].logprobs.content
    assert [one.top_logprobs for one in alone] == [[]] * 4
    assert client.chat.completions.create(**chat, **options).choices[0].logprobs is None


def test_prompt_logprobs_are_by_token_id(http, expected) -> None:
    wanted = expected(PROMPT)
    body = {"prompt": PROMPT, "max_tokens": 0, "prompt_logprobs": 1}
    answer = http.post("/v1/completions", json=body).json()
    choice = answer["choices"][0]
    assert (choice["text"], choice["logprobs"]) == ("", None)
    found = choice["prompt_logprobs"]
    assert found[0] is None
    for i, token in enumerate(PROMPT[1:]):
        best = int(wanted[i].argmax())
        assert set(found[i + 1]) == {str(token), str(best)}
        own = found[i + 1][str(token)]
        assert (own["logprob"], own["decoded_token"]) == (near(wanted[i, token]), f" w{token}")
        assert own["rank"] == 1 + int((wanted[i] > wanted[i, token]).sum())
    chat = {"messages": [{"role": "user", "content": "w31"}], "max_tokens": 1, "prompt_logprobs": 0}
    assert [one and list(one) for one in http.post("/v1/chat/completions", json=chat).json()["prompt_logprobs"]] == [
        None,
        ["31"],
        ["7"],
    ]


def test_the_end_of_a_prompt_can_be_kept_alone(client, engine: Engine) -> None:
    for kept, prompt in ((2, PROMPT[-2:]), (99, PROMPT), (-1, PROMPT)):
        got = client.completions.create(
            model="tiny", prompt=TEXT, max_tokens=4, temperature=0, extra_body={"truncate_prompt_tokens": kept}
        )
        assert got.usage.prompt_tokens == len(prompt)
        assert got.choices[0].text == engine.generate(prompt, max_new_tokens=4).text
    long = client.completions.create(
        model="tiny", prompt=[5] * 600, max_tokens=30, extra_body={"truncate_prompt_tokens": -1, "ignore_eos": True}
    )
    assert (long.usage.prompt_tokens, long.usage.completion_tokens) == (450, 30)  # 480 tokens fit
    echo = client.completions.create(
        model="tiny", prompt=TEXT, max_tokens=1, echo=True, extra_body={"truncate_prompt_tokens": 2}
    )
    assert echo.choices[0].text.startswith("w42 w43")


def test_penalties_biases_and_stop_tokens(client, engine: Engine) -> None:
    options = {"repetition_penalty": 1.4, "min_p": 0.05, "min_tokens": 4}
    sampling = {"presence_penalty": 0.4, "frequency_penalty": 0.3, "temperature": 0.8, "seed": 5}
    whole = engine.generate(PROMPT, max_new_tokens=12, ignore_eos=True, **options, **sampling).token_ids
    stop = next(token for token in whole[4:] if token not in whole[:4])
    body = {**options, "stop_token_ids": [stop], "ignore_eos": True}
    got = client.completions.create(model="tiny", prompt=PROMPT, max_tokens=12, extra_body=body, **sampling)
    expected = whole[: whole.index(stop)]
    assert got.choices[0].text.split() == [f"w{token}" for token in expected]
    assert (got.choices[0].finish_reason, got.usage.completion_tokens) == ("stop", len(expected) + 1)
    forced = client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": "w5"}], max_tokens=3, logit_bias={"77": 100}
    )
    assert forced.choices[0].message.content.split() == ["w77"] * 3
