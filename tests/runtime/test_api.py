"""The HTTP API: OpenAI's own client, status codes, limits, and a fuzz against the API's own description."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
httpx = pytest.importorskip("httpx")
openai = pytest.importorskip("openai")

from helix_kit.errors import InputError  # noqa: E402
from helix_kit.runtime import Engine, serve  # noqa: E402
from helix_kit.runtime.api import Limits, Server, run_server, start_server  # noqa: E402
from helix_kit.runtime.weights.tiny import tiny_plan  # noqa: E402

TEMPLATE = "{% for m in messages %}{{ 'w9 ' if m['role'] == 'user' else 'w8 ' }}{{ m['content'] }} {% endfor %}w7"


@pytest.fixture(scope="module")
def weights(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a chat template."""
    folder = tmp_path_factory.mktemp("chat") / "tiny-chat"
    folder.mkdir()
    for path in tiny_llama.iterdir():
        (folder / path.name).symlink_to(path)
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE, "eos_token": "</s>"}))
    return folder


@pytest.fixture(scope="module")
def engine(weights: Path) -> Iterator[Engine]:
    plan = tiny_plan(weights, {"a": (0, 4), "b": (2, 6)}, step_ms=0.5)
    with serve(plan, weights, launcher="inproc", pace=True, max_queue=4, kv_pages=120) as running:
        yield running


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Server]:
    with start_server(engine, model_name="tiny", limits=Limits(body_bytes=20_000, new_tokens=400)) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Server):
    return openai.OpenAI(base_url=server.url, api_key="none", max_retries=0)


@pytest.fixture
def http(server: Server):
    with httpx.Client(base_url=server.url.removesuffix("/v1"), timeout=60) as made:
        yield made


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


def test_metrics_count(client, http) -> None:
    def value(name: str) -> float:
        lines = [line for line in http.get("/metrics").text.splitlines() if line.startswith(name)]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    before = {name: value(name) for name in ("helix_kit_prompt_tokens_total", "helix_kit_generated_tokens_total")}
    done = client.completions.create(model="tiny", prompt="w5 w6 w7", max_tokens=5, extra_body={"ignore_eos": True})
    assert value("helix_kit_prompt_tokens_total") == before["helix_kit_prompt_tokens_total"] + 3
    assert value("helix_kit_generated_tokens_total") == before["helix_kit_generated_tokens_total"] + 5
    assert done.usage.completion_tokens == 5
    assert value("helix_kit_worker_up{") == 2
    assert value('helix_kit_http_requests_total{path="/v1/completions",status="200"}') >= 1


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


def test_api_key(engine: Engine) -> None:
    with start_server(engine, api_key="s3cret") as server:
        assert httpx.get(f"{server.url}/models").status_code == 401
        wrong = {"Authorization": "Bearer s3cre"}
        assert httpx.get(f"{server.url}/models", headers=wrong).json()["error"]["code"] == "invalid_api_key"
        right = openai.OpenAI(base_url=server.url, api_key="s3cret")
        assert right.models.list().data
        assert httpx.get(server.url.replace("/v1", "/health")).status_code == 200
        assert httpx.get(server.url.replace("/v1", "/metrics")).status_code == 401


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


@pytest.mark.parametrize("stream", [False, True])
def test_an_interrupt_answers_what_is_under_way(weights: Path, monkeypatch: pytest.MonkeyPatch, stream: bool) -> None:
    """Ctrl-C in `run_server`: 503 (or an error event) with the reason, and the engine is closed."""
    begun, port = threading.Event(), []

    def wait(server: Server) -> None:
        port.append(server.port)
        begun.set()
        end = time.monotonic() + 30
        while engine.status().running == 0 and time.monotonic() < end:
            time.sleep(0.01)
        raise KeyboardInterrupt

    monkeypatch.setattr(Server, "wait", wait)
    plan = tiny_plan(weights, {"a": (0, 6)}, step_ms=20)
    with serve(plan, weights, launcher="inproc", pace=True) as engine, ThreadPoolExecutor(1) as pool:

        def ask() -> Any:
            assert begun.wait(30)
            body = {"model": "tiny", "prompt": "w5", "max_tokens": 400, "stream": stream}
            return httpx.post(f"http://127.0.0.1:{port[0]}/v1/completions", json=body, timeout=30)

        asked = pool.submit(ask)
        run_server(engine, port=0, model_name="tiny")
        answer = asked.result(30)
        assert engine.closed
    assert "the engine was closed" in answer.text
    # A stream that had begun has its status already.
    assert answer.status_code == 503 or (stream and answer.text.endswith("data: [DONE]\n\n"))


def test_a_taken_port_is_a_clear_error(engine: Engine, server: Server) -> None:
    with pytest.raises(InputError, match=f"127.0.0.1:{server.port}.*cannot listen"):
        start_server(engine, port=server.port)


def test_the_example_runs(server: Server, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = importlib.util.spec_from_file_location("openai_client", root / "examples" / "openai_client.py")
    assert spec and spec.loader
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    example.talk(server.url)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["completion", "chat", "stream"]
    chat, stream = lines[1].removeprefix("chat: "), lines[2].removeprefix("stream: ")
    assert stream.startswith(chat) and stream.endswith("tokens)")


def test_fuzz_against_the_description(engine: Engine) -> None:
    """Whatever fits the API's own description, and much that does not, gets an answer that is not a 5xx."""
    schemathesis = pytest.importorskip("schemathesis")
    from hypothesis import HealthCheck, given, settings

    from helix_kit.runtime.api import create_app

    app = create_app(engine, model_name="tiny", limits=Limits(new_tokens=20, default_chat_tokens=8))
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
