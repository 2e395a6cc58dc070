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
        ({"prompt": [3] * 500, "max_tokens": 50}, 400, "context is 512 tokens"),
        ({"prompt": [300]}, 400, "from 0 to 255"),
        ({"prompt": ""}, 400, "at least one token"),
        ({"prompt": "w5", "temperature": 3}, 400, "temperature"),
        ({"prompt": "w5", "logprobs": 0}, 400, "logprobs is not supported"),
        ({"prompt": "w5", "presence_penalty": 0.5}, 400, "presence_penalty is not supported"),
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

    def endless() -> Iterator[bytes]:  # no Content-Length: the size shows only on the way
        for _ in range(100):
            yield b" " * 1000

    assert http.post("/v1/completions", content=endless()).status_code == 413


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
