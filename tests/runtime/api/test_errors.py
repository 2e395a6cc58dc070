"""Status codes and messages of requests that fail."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("torch")
httpx = pytest.importorskip("httpx")
openai = pytest.importorskip("openai")

from helix_kit.runtime import Engine, serve  # noqa: E402
from helix_kit.runtime.api import Limits, start_server  # noqa: E402
from helix_kit.runtime.weights.tiny import tiny_plan  # noqa: E402


def idle(engine: Engine, timeout_s: float) -> bool:
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        status = engine.status()
        if not status.running and not status.waiting:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"model": "tiny"}, 400, "prompt"),
        ({"prompt": "w5", "max_tokens": 0}, 400, "max_tokens"),
        ({"prompt": "w5", "max_tokens": 401}, 400, "at most 400"),
        ({"prompt": [3] * 500, "max_tokens": 50}, 400, "context length is 512 tokens"),
        ({"prompt": [300]}, 400, "from 0 to 255"),
        ({"prompt": ""}, 400, "at least one token"),
        ({"prompt": [True, False]}, 400, "prompt"),
        ({"prompt": [[5, True]]}, 400, "prompt"),
        ({"prompt": [5.0]}, 400, "prompt"),
        ({"prompt": "w5", "stop_token_ids": [True]}, 400, "stop_token_ids"),
        ({"prompt": "w5", "temperature": 3}, 400, "temperature"),
        ({"prompt": "w5", "suffix": "w6"}, 400, "suffix is not supported"),
        ({"prompt": "w5", "response_format": {"type": "json_object"}}, 400, "response_format is not supported"),
        ({"prompt": "w5", "logprobs": 21}, 400, "logprobs"),
        ({"prompt": "w5", "logprobs": True}, 400, "logprobs"),
        ({"prompt": "w5", "presence_penalty": 2.5}, 400, "presence_penalty"),
        ({"prompt": "w5", "logit_bias": {"300": 1}}, 400, "from 0 to 255"),
        ({"prompt": "w5", "logit_bias": {"w5": 1}}, 400, "logit_bias"),
        ({"prompt": "w5", "stop_token_ids": [256]}, 400, "from 0 to 255"),
        ({"prompt": "w5", "model": "gpt-4"}, 404, "serves 'tiny'"),
        ({"prompt": "w5 " * 9000}, 413, "larger than 20000 bytes"),
    ],
)
def test_wrong_requests(http, body: dict, status: int, message: str) -> None:
    answer = http.post("/v1/completions", json=body)
    assert answer.status_code == status, answer.text
    assert message in answer.json()["error"]["message"]


def test_other_wrong_requests(http) -> None:
    assert http.post("/v1/completions", content=b"{").status_code == 400
    assert http.post("/v1/chat/completions", json={"messages": []}).status_code == 400
    assert http.get("/v1/completions").status_code == 405
    assert http.get("/nowhere").json()["error"]["type"] == "not_found_error"
    assert "GET /nowhere: Not Found; expected POST /v1/completions" in http.get("/nowhere").json()["error"]["message"]

    def endless() -> Iterator[bytes]:  # no Content-Length: the size shows only on the way
        for _ in range(100):
            yield b" " * 1000

    assert http.post("/v1/completions", content=endless()).status_code == 413


@pytest.mark.parametrize(
    ("content", "media_type", "message"),
    [
        (
            b'{"prompt": "w5"}',
            "application/x-www-form-urlencoded",
            "expected the header `Content-Type: application/json`",
        ),
        (b"", "application/json", "the body is empty: expected a JSON object"),
        (b"[1]", "application/json", "expected a JSON object"),
        (b'{"prompt":', "application/json", "the body is no JSON: "),
        (b'{"prompt": "w5", "logprobs": true}', "application/json", "logprobs: Input should be a valid integer"),
    ],
)
def test_messages_that_do_not_name_a_library(http, content: bytes, media_type: str, message: str) -> None:
    answer = http.post("/v1/completions", content=content, headers={"Content-Type": media_type})
    said = answer.json()["error"]["message"]
    assert answer.status_code == 400 and message in said
    assert not any(word in said for word in ("constrained", "literal[", "dictionary"))


USER = {"role": "user", "content": "w5"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
STRICT = {"type": "function", "function": {"name": "f", "strict": True}}


@pytest.mark.parametrize(
    ("path", "body", "code", "param"),
    [
        (
            "completions",
            {"prompt": "w5", "max_tokens": 400, "logit_bias": {"5": 101}},
            "invalid_request",
            "logit_bias",
        ),
        ("completions", {"prompt": "w5", "messages": [USER]}, "unknown_parameter", "messages"),
        ("completions", {"prompt": "w5", "max_tokens": 401}, "invalid_value", "max_tokens"),
        ("completions", {"prompt": [5] * 200, "max_tokens": 399}, "context_length_exceeded", "max_tokens"),
        ("completions", {"prompt": [5] * 512}, "context_length_exceeded", "prompt"),
        ("completions", {"prompt": [[5], [5] * 600], "max_tokens": 1}, "context_length_exceeded", "prompt"),
        ("completions", {"prompt": [300]}, "invalid_value", "prompt"),
        ("completions", {"prompt": "w5", "temperature": "hot"}, "invalid_request", "temperature"),
        ("completions", {"prompt": [5, None]}, "invalid_request", "prompt"),
        ("completions", {"prompt": None}, "invalid_request", "prompt"),
        (
            "chat/completions",
            {"messages": [{"role": "user", "content": "w5 " * 600}]},
            "context_length_exceeded",
            "messages",
        ),
        (
            "chat/completions",
            {"messages": [{"role": "user", "content": "w5 " * 200}], "max_completion_tokens": 399},
            "context_length_exceeded",
            "max_completion_tokens",
        ),
        ("chat/completions", {"messages": [None]}, "invalid_request", "messages"),
        ("chat/completions", {"messages": [{"role": "user", "content": None}]}, "invalid_value", "messages"),
        ("completions", {"prompt": "w5", "min_tokens": 17}, "invalid_value", "min_tokens"),
        ("completions", {"prompt": "w5", "min_tokens": 4, "max_tokens": 3}, "invalid_value", "min_tokens"),
        ("completions", {"prompt": "w5", "logit_bias": {"256": 1}}, "invalid_value", "logit_bias"),
        ("completions", {"prompt": "w5", "truncate_prompt_tokens": 0}, "invalid_value", "truncate_prompt_tokens"),
        ("completions", {"prompt": "w5", "prompt_logprobs": 1, "stream": True}, "invalid_value", "prompt_logprobs"),
        ("completions", {"prompt": "w5", "max_tokens": 0}, "invalid_value", "max_tokens"),
        ("completions", {"prompt": [5] * 500, "max_tokens": 4}, "context_length_exceeded", "prompt"),
        ("completions", {"prompt": [5] * 300, "max_tokens": 190}, "context_length_exceeded", "max_tokens"),
        ("completions", {"prompt": "w5", "tools": [{"type": "function"}]}, "unsupported_parameter", "tools"),
        ("chat/completions", {"messages": [USER], "tools": [{"type": "function"}]}, "invalid_request", "tools"),
        ("chat/completions", {"messages": [USER], "tools": [TOOL]}, "unsupported_value", "tools"),
        ("chat/completions", {"messages": [USER], "tools": [STRICT]}, "unsupported_parameter", "tools"),
        ("chat/completions", {"messages": [USER], "tool_choice": "required"}, "unsupported_parameter", "tool_choice"),
        ("chat/completions", {"messages": [USER], "documents": [{"text": "w5"}]}, "unsupported_value", "documents"),
        (
            "chat/completions",
            {"messages": [USER], "chat_template_kwargs": {"enable_thinking": False}},
            "unsupported_value",
            "chat_template_kwargs",
        ),
        (
            "chat/completions",
            {"messages": [USER], "chat_template_kwargs": {"messages": []}},
            "unsupported_value",
            "chat_template_kwargs",
        ),
        ("chat/completions", {"messages": [USER], "top_logprobs": 2}, "invalid_value", "top_logprobs"),
        ("chat/completions", {"messages": [USER], "echo": True}, "unsupported_parameter", "echo"),
        ("chat/completions", {"messages": [USER], "stream_options": {"a": 1}}, "invalid_request", "stream_options"),
    ],
)
def test_errors_name_their_field(http, path: str, body: dict, code: str, param: str) -> None:
    answer = http.post(f"/v1/{path}", json=body)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert (error["code"], error["param"], error["type"]) == (code, param, "invalid_request_error")
    assert param in error["message"]
    assert "max_new_tokens" not in error["message"]


@pytest.mark.parametrize(
    "body",
    [
        r'{"prompt": "\ud83d"}',
        r'{"prompt": ["w5", "\udc00"]}',
        r'{"prompt": "w5", "model": "\ud83d"}',
        r'{"prompt": "w5", "stop": ["\ud83d"]}',
        r'{"prompt": "w5", "\ud83d": 1}',
        r'{"prompt": "w5", "user": {"\ud83d": 1}}',
        '{"prompt": "w5", "temperature": NaN}',
        '{"prompt": "w5", "temperature": 1e400}',
        '{"prompt": "w5", "metadata": {"a": -Infinity}}',
        '{"prompt": "w5", "temperature": 1' + "0" * 400 + "}",
        '{"prompt": "w5", "seed": 1' + "0" * 400 + "}",
        '{"prompt": "w5", "seed": 1' + "0" * 5000 + "}",
        '{"prompt": "w5", "seed": 9223372036854775808}',
        '{"prompt": "w5", "max_tokens": 1e30}',
        '{"prompt": [1' + "0" * 30 + "]}",
        '{"prompt": "w5", "n": 1e400}',
        "[" * 9000,
        '{"prompt": "w5", "metadata": ' + "[" * 900 + "]" * 900 + ', "logit_bias": 1}',
        '{"prompt": "w5", "user": ' + "[" * 9000 + "]" * 9000 + "}",
        "null",
        "[]",
        '"w5"',
        "",
        b"\xff\xfe",
        b'{"prompt": "\xed\xa0\xbd"}',
    ],
)
def test_odd_bodies_are_400_in_openais_form(http, body: str | bytes) -> None:
    for path in ("completions", "chat/completions"):
        answer = http.post(f"/v1/{path}", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 400, answer.text
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_half_a_character_in_a_message_is_400(http) -> None:
    body = r'{"messages": [{"role": "user", "content": "a\ud83d"}]}'
    answer = http.post("/v1/chat/completions", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "messages")


def test_another_model_is_404_with_its_code(http) -> None:
    error = http.post("/v1/completions", json={"prompt": "w5", "model": "gpt-4"}).json()["error"]
    assert (error["code"], error["param"]) == ("model_not_found", "model")


def test_a_defect_is_500_in_openais_form() -> None:
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

    from helix_kit.runtime.api import errors

    app = FastAPI()
    errors.install(app)

    @app.get("/")
    def fails() -> None:
        raise RuntimeError("secret")

    answer = TestClient(app, raise_server_exceptions=False).get("/")
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    assert "secret" not in answer.text


def test_a_full_queue_is_429(http, engine: Engine) -> None:
    body = {"prompt": [5] * 100, "max_tokens": 80, "temperature": 0, "ignore_eos": True}
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: http.post("/v1/completions", json=body), range(16)))
    codes = [a.status_code for a in answers]
    assert set(codes) == {200, 429}
    refused = next(a for a in answers if a.status_code == 429)
    assert refused.json()["error"]["code"] == "queue_full"
    assert refused.headers["retry-after"] == "1"


def test_time_limit_is_503(weights: Path) -> None:
    plan = tiny_plan(weights, {"a": (0, 6)}, step_ms=20.0)
    limits = Limits(seconds=2.0)
    with serve(plan, weights, launcher="inproc", pace=True) as engine, start_server(engine, limits=limits) as server:
        body = {"prompt": [5], "max_tokens": 300, "ignore_eos": True}
        answer = httpx.post(f"{server.url}/completions", json=body, timeout=30)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "timeout")
        lines = httpx.post(f"{server.url}/completions", json={**body, "stream": True}, timeout=30).text.split("\n\n")
        assert json.loads(lines[-3].removeprefix("data: "))["error"]["code"] == "timeout"
        assert lines[-2] == "data: [DONE]"
        assert idle(engine, 5)


def test_no_pipeline_is_503(tiny_llama: Path) -> None:
    plan = tiny_plan(tiny_llama, {"a": (0, 3), "b": (3, 6)})
    with serve(plan, tiny_llama, pace=False) as engine, start_server(engine) as server:
        os.kill(engine.status().workers["b"].pid, signal.SIGKILL)
        answer = httpx.post(f"{server.url}/completions", json={"prompt": [5], "max_tokens": 300}, timeout=30)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_pipeline")
        assert "lost: b" in answer.json()["error"]["message"]
        assert httpx.get(server.url.replace("/v1", "/health")).status_code == 503
        engine.close()
        assert httpx.post(f"{server.url}/completions", json={"prompt": [5]}).status_code == 503
