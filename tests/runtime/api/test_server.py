"""The server's start and end, and the example client."""

from __future__ import annotations

import importlib.util
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
httpx = pytest.importorskip("httpx")
openai = pytest.importorskip("openai")

from helix_kit.errors import InputError  # noqa: E402
from helix_kit.runtime import Engine, serve  # noqa: E402
from helix_kit.runtime.api import Server, run_server, start_server  # noqa: E402
from helix_kit.runtime.weights.tiny import tiny_plan  # noqa: E402


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
