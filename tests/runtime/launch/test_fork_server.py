"""The fork server: it answers each request with a process id, notices ends, and leaves no process behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("torch")

from helix_kit.runtime.spec import WorkerSpec


class Server:
    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "helix_kit.runtime.launch.fork_server", "llama"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.ready = self.answer()

    def answer(self) -> dict[str, int]:
        return json.loads(self.process.stdout.readline())

    def ask(self, *specs: dict) -> None:
        self.process.stdin.write(b"".join(json.dumps({"spawn": spec}).encode() + b"\n" for spec in specs))
        self.process.stdin.flush()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    with server.process:  # closes its pipes at the end, and waits
        yield server
        server.process.kill()


def spec(folder: Path, name: str) -> dict:
    """A worker whose coordinator is not there: it serves until it is ended."""
    return WorkerSpec(
        name=name, weights=str(folder), start=0, end=2, num_pages=8, coordinator="tcp://127.0.0.1:9", key_hex="00" * 32
    ).model_dump(mode="json")


def wait_for_end(pid: int) -> None:
    end = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < end, f"{pid} still runs"
        time.sleep(0.02)


def test_workers_are_forked_noticed_and_ended(server: Server, tiny_llama: Path) -> None:
    assert server.ready == {"ready": server.process.pid}
    server.ask(spec(tiny_llama, "a"), spec(tiny_llama, "b"))
    first, second = (server.answer()["pid"] for _ in range(2))
    assert {Path(f"/proc/{pid}/stat").read_text().split()[3] for pid in (first, second)} == {str(server.process.pid)}
    os.kill(first, signal.SIGSTOP)  # one that is stuck, too
    os.kill(first, signal.SIGKILL)
    assert server.answer() == {"exit": first}
    server.ask({**spec(tiny_llama, "broken"), "pages": 3})
    broken = server.answer()["pid"]
    assert server.answer() == {"exit": broken}
    server.process.stdin.close()
    assert server.process.wait(10) == 0
    told = server.process.stderr.read()
    assert b"worker broken: ValidationError" in told and b"pages" in told
    wait_for_end(second)


def test_workers_end_with_a_server_that_is_killed(server: Server, tiny_llama: Path) -> None:
    server.ask(spec(tiny_llama, "a"))
    pid = server.answer()["pid"]
    server.process.kill()
    server.process.wait(10)
    wait_for_end(pid)
