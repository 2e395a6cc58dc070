"""The server's start and end, and the example client."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import socket
import subprocess
import sys
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


def processes_with(mark: str) -> list[int]:
    """Processes that run with a variable in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in /proc")
def test_sigterm_ends_the_program_as_ctrl_c_does(weights: Path, tmp_path: Path) -> None:
    tiny_plan(weights, {"a": (0, 6)}).save(tmp_path / "plan.json")
    fields = json.loads((tmp_path / "plan.json").read_text())
    for computed in ("flow", "flow_tokens_per_s", "bound_tokens_per_s", "gap", "node_throughput_tokens_per_s"):
        del fields[computed]  # those of the tiny plan are of its own profile, which a file does not keep
    (tmp_path / "plan.json").write_text(json.dumps(fields))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "helix_kit.cli", "serve", str(tmp_path / "plan.json"), "--http", str(port)]
    url = f"http://127.0.0.1:{port}"
    mark = f"HELIX_KIT_TEST_MARK={tmp_path}"
    program = subprocess.Popen(
        [*command, "--weights", str(weights)], stderr=subprocess.DEVNULL, env={**os.environ, **dict([mark.split("=")])}
    )
    try:
        end = time.monotonic() + 120
        is_up = False
        while not is_up and program.poll() is None and time.monotonic() < end:
            time.sleep(0.2)
            with contextlib.suppress(httpx.TransportError):
                is_up = httpx.get(f"{url}/health").status_code == 200
        assert is_up and len(processes_with(mark)) > 1
        with ThreadPoolExecutor(1) as pool:
            body = {"prompt": "w5", "max_tokens": 500, "ignore_eos": True}
            asked = pool.submit(httpx.post, f"{url}/v1/completions", json=body, timeout=60)
            while "helix_kit_requests_running 1.0" not in httpx.get(f"{url}/metrics").text:
                time.sleep(0.05)
            program.terminate()
            answer = asked.result(60)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "closed")
        assert program.wait(30) == 0
        assert processes_with(mark) == []
    finally:
        program.kill()


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
