"""The HTTP API: OpenAI's own client, clients that leave, and a fuzz against the API's own description."""

from __future__ import annotations

import threading
import time

import pytest

pytest.importorskip("torch")
httpx = pytest.importorskip("httpx")
openai = pytest.importorskip("openai")

from helix_kit.runtime import Engine  # noqa: E402
from helix_kit.runtime.api import Limits, Server  # noqa: E402


def test_completions(client, engine: Engine) -> None:
    expected = engine.generate(["w5 w6", "w20"], max_new_tokens=9)
    got = client.completions.create(model="tiny", prompt=["w5 w6", "w20"], max_tokens=9, temperature=0)
    assert [c.text for c in got.choices] == [e.text for e in expected]
    assert [c.index for c in got.choices] == [0, 1]
    assert got.usage.prompt_tokens == 3
    assert got.usage.completion_tokens == sum(len(e.token_ids) for e in expected)
    ids = client.completions.create(model="tiny", prompt=[5, 6], max_tokens=9, temperature=0)
    assert ids.choices[0].text == expected[0].text


def test_chat(client, engine: Engine) -> None:
    messages = [{"role": "system", "content": "w30"}, {"role": "user", "content": "w31 w32"}]
    expected = engine.generate("w8 w30 w9 w31 w32 w7", max_new_tokens=8)
    got = client.chat.completions.create(model="tiny", messages=messages, max_tokens=8, temperature=0)
    assert got.choices[0].message.content == expected.text
    assert got.choices[0].finish_reason == expected.finish_reason
    assert got.usage.prompt_tokens == 6
    parts = [{"role": "user", "content": [{"type": "text", "text": "w31 "}, {"type": "text", "text": "w32"}]}]
    assert client.chat.completions.create(model="tiny", messages=parts, max_tokens=2).usage.prompt_tokens == 4


def test_streams_say_the_same(client) -> None:
    options = {"model": "tiny", "max_tokens": 12, "temperature": 0.7, "seed": 3}
    whole = client.completions.create(prompt="w5 w6", n=2, **options)
    assert whole.choices[0].text != whole.choices[1].text
    texts, reasons = ["", ""], [None, None]
    for chunk in client.completions.create(prompt="w5 w6", n=2, stream=True, **options):
        choice = chunk.choices[0]
        texts[choice.index] += choice.text
        reasons[choice.index] = choice.finish_reason or reasons[choice.index]
    assert texts == [c.text for c in whole.choices]
    assert reasons == [c.finish_reason for c in whole.choices]
    messages = [{"role": "user", "content": "w31"}]
    chat = client.chat.completions.create(messages=messages, **options)
    chunks = list(
        client.chat.completions.create(
            messages=messages, stream=True, stream_options={"include_usage": True}, **options
        )
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == chat.choices[0].message.content
    assert chunks[-1].usage == chat.usage


def texts(answer) -> list[str]:
    return [c.message.content if hasattr(c, "message") else c.text for c in answer.choices]


def ask(client, endpoint: str, **options):
    """An answer of six tokens from either endpoint."""
    options = {"model": "tiny", "max_tokens": 6, "temperature": 1, **options}
    if endpoint == "chat":
        return client.chat.completions.create(messages=[{"role": "user", "content": "w31"}], **options)
    return client.completions.create(prompt="w5 w6", **options)


@pytest.mark.parametrize("endpoint", ["completions", "chat"])
def test_choices_and_requests_differ_unless_they_have_a_seed(client, endpoint: str) -> None:
    assert len(set(texts(ask(client, endpoint, n=4)))) == 4
    assert len({texts(ask(client, endpoint))[0] for _ in range(3)}) == 3
    seeded = texts(ask(client, endpoint, n=4, seed=7))
    assert len(set(seeded)) == 4
    assert texts(ask(client, endpoint, n=4, seed=7)) == seeded
    assert texts(ask(client, endpoint, seed=7)) == seeded[:1]
    assert texts(ask(client, endpoint, seed=8))[0] not in seeded
    assert len(set(texts(ask(client, endpoint, n=3, temperature=0)))) == 1


def test_the_seed_is_the_engines(client, engine: Engine) -> None:
    expected = engine.generate("w5 w6", max_new_tokens=6, temperature=1.0, seed=7).text
    assert texts(ask(client, "completions", seed=7)) == [expected]


def test_without_a_limit_an_answer_takes_what_fits(client, engine: Engine) -> None:
    # 120 pages of 16 tokens of one layer, and 4 layers: fewer tokens than the context of 512.
    assert engine.max_request_tokens() == 480
    more = {"ignore_eos": True}
    short = client.completions.create(model="tiny", prompt=[5] * 472, extra_body=more)
    assert (short.usage.completion_tokens, short.choices[0].finish_reason) == (8, "length")
    assert client.completions.create(model="tiny", prompt=[5, 6], extra_body=more).usage.completion_tokens == 16
    # The template adds two tokens; the test's server allows answers of 400 tokens.
    for prompt, answer in ((468, 10), (20, 400)):
        messages = [{"role": "user", "content": "w5 " * prompt}]
        chat = client.chat.completions.create(model="tiny", messages=messages, extra_body=more)
        assert chat.usage.prompt_tokens == prompt + 2
        assert chat.usage.completion_tokens == answer


def test_max_completion_tokens(client) -> None:
    messages = [{"role": "user", "content": "w5"}]
    options = {"model": "tiny", "messages": messages, "extra_body": {"ignore_eos": True}}
    assert client.chat.completions.create(max_completion_tokens=3, **options).usage.completion_tokens == 3
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(max_completion_tokens=3, max_tokens=4, **options)
    assert refused.value.param == "max_completion_tokens"


def test_stop_strings(client, engine: Engine) -> None:
    words = engine.generate("w5 w6", max_new_tokens=12, ignore_eos=True).text.split()
    stop = next(w for w in words[2:] if w not in words[:2])
    got = client.completions.create(
        model="tiny", prompt="w5 w6", max_tokens=12, temperature=0, stop=[stop], extra_body={"ignore_eos": True}
    )
    assert got.choices[0].finish_reason == "stop"
    assert got.choices[0].text.split() == words[: words.index(stop)]


def test_models_and_health(client, http) -> None:
    assert [m.id for m in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "helix_kit"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")
    health = http.get("/health")
    assert health.status_code == 200
    assert health.json()["workers"] == {"a": "up", "b": "up"}


def idle(engine: Engine, timeout_s: float) -> bool:
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        status = engine.status()
        if not status.running and not status.waiting:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_place(server: Server, engine: Engine, stream: bool) -> None:
    assert idle(engine, 10)
    body = {"prompt": [5, 6], "max_tokens": 400, "stream": stream, "ignore_eos": True}
    generated = engine.status().tokens_out
    with pytest.raises(httpx.ReadTimeout), httpx.Client(base_url=server.url, timeout=0.3) as quick:
        if stream:
            with quick.stream("POST", "/completions", json=body) as answer:
                for _ in answer.iter_lines():
                    if engine.status().tokens_out > generated + 5:
                        raise httpx.ReadTimeout("leaves")
        quick.post("/completions", json=body)
    assert idle(engine, 5)
    assert engine.status().tokens_out < generated + 400


def test_fuzz_against_the_description(engine: Engine) -> None:
    """Whatever fits the API's own description, and much that does not, gets an answer that is not a 5xx."""
    schemathesis = pytest.importorskip("schemathesis")
    from hypothesis import HealthCheck, given, settings

    from helix_kit.runtime.api import create_app

    app = create_app(engine, model_name="tiny", limits=Limits(new_tokens=20))
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    seen: set[tuple[str, int]] = set()

    def fuzz(operation) -> None:
        @given(case=operation.as_strategy())
        @settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
        def check(case) -> None:
            answer = case.call()
            seen.add((operation.path, answer.status_code))
            assert answer.status_code < 500, answer.text

        check()

    for result in schema.get_all_operations():
        fuzz(result.ok())
    assert {path for path, _ in seen} >= {"/v1/completions", "/v1/chat/completions", "/v1/models", "/health"}
    assert ("/v1/completions", 400) in seen
    assert threading.active_count() < 200


def test_tool_messages_are_never_dropped(http) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    said = {"role": "tool", "tool_call_id": "1", "content": "w6"}
    for content in (None, ""):
        asked = {"role": "assistant", "content": content, "tool_calls": [call]}
        answer = http.post("/v1/chat/completions", json={"messages": [asked, said], "max_tokens": 2})
        # The template of these tests writes roles and texts alone.
        assert answer.status_code == 400
        assert "messages[0].tool_calls" in answer.json()["error"]["message"]
    answer = http.post("/v1/chat/completions", json={"messages": [said], "max_tokens": 2, "temperature": 0})
    assert answer.json()["usage"]["prompt_tokens"] == 3
