"""Workers as processes of this machine (the default): forked from a nursery that has everything loaded, where they
compute on a CPU; started afresh (seconds longer) where they compute on a GPU, since CUDA does not survive a fork."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading

from helix_kit.errors import HelixKitError
from helix_kit.runtime.spec import WorkerSpec

NURSERY_START_S = 180.0
STOP_GRACE_S = 2.0


class ProcessWorker:
    """A worker process on this machine."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._ended = threading.Event()

    def is_alive(self) -> bool:
        """Whether the process runs (a frozen one does)."""
        return not self._ended.is_set()

    def kill(self) -> None:
        """End it by SIGKILL, which also ends a stopped process."""
        if self.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


class FreshWorker:
    """A worker process on this machine that was not forked."""

    def __init__(self, spec: WorkerSpec, environment: dict[str, str]) -> None:
        command = [sys.executable, "-m", "helix_kit.runtime.launch.alone"]
        # Its output is nobody's answer: what a library prints goes where errors go.
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=2, env=environment)
        self.pid = self._process.pid
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended already, which is noticed like any other end
            self._process.stdin.write(spec.model_dump_json().encode() + b"\n")
            self._process.stdin.flush()

    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def kill(self) -> None:
        """End it by SIGKILL."""
        self._process.kill()

    def end(self, grace_s: float) -> None:
        """Wait for its end, and bring it about after `grace_s`."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(grace_s)
        self.kill()
        self._process.wait()
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()


class ProcessLauncher:
    """Starts workers when asked; with `forks`, a nursery for `model_type` begins to load at once, in the background."""

    host = "127.0.0.1"

    def __init__(self, model_type: str, *, threads: int = 1, forks: bool = True) -> None:
        self._model_type = model_type
        self._environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(threads),
            # Threads that wait for work must not spin: the other workers need the cores.
            "OMP_WAIT_POLICY": "PASSIVE",
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
        }
        self._fresh: list[FreshWorker] = []
        self._workers: dict[int, ProcessWorker] = {}
        self._answers: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._nursery: subprocess.Popen[bytes] | None = None
        self._is_ready = False
        if forks:
            self._open_nursery()

    def _open_nursery(self) -> subprocess.Popen[bytes]:
        self._nursery = subprocess.Popen(
            [sys.executable, "-m", "helix_kit.runtime.launch.nursery", self._model_type],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=self._environment,
        )
        self._reader = threading.Thread(target=self._read, daemon=True, name="helix-kit-nursery")
        self._reader.start()
        return self._nursery

    def _read(self) -> None:
        assert self._nursery is not None and self._nursery.stdout is not None
        for line in self._nursery.stdout:
            answer = json.loads(line)
            if "ready" in answer:
                self._answers.put(answer["ready"])
            elif "pid" in answer:
                # Known before the next line is read, so that its exit cannot be missed.
                self._workers[answer["pid"]] = ProcessWorker(answer["pid"])
                self._answers.put(answer["pid"])
            elif worker := self._workers.get(answer["exit"]):
                worker._ended.set()
        for worker in list(self._workers.values()):
            worker._ended.set()
        self._answers.put(None)

    def _answer(self) -> int:
        try:
            pid = self._answers.get(timeout=NURSERY_START_S)
        except queue.Empty:
            pid = None
        if pid is None:
            raise HelixKitError("workers cannot be started: their parent process has ended (see its messages above)")
        return pid

    def start(self, spec: WorkerSpec) -> ProcessWorker | FreshWorker:
        """Start a worker; the first on a CPU waits until the nursery has loaded torch and the model's code."""
        if spec.device != "cpu":
            self._fresh.append(FreshWorker(spec, self._environment))
            return self._fresh[-1]
        nursery = self._nursery or self._open_nursery()
        if not self._is_ready:
            self._answer()
            self._is_ready = True
        assert nursery.stdin is not None
        line = json.dumps({"spawn": spec.model_dump(mode="json")}) + "\n"
        try:
            nursery.stdin.write(line.encode())
            nursery.stdin.flush()
        except OSError as error:
            raise HelixKitError(f"workers cannot be started: {error}") from None
        return self._workers[self._answer()]

    def close(self) -> None:
        """End all workers (those told to stop get a moment), then the nursery; no process is left behind."""
        for worker in list(self._workers.values()):
            worker._ended.wait(STOP_GRACE_S)
            worker.kill()
        for fresh in self._fresh:
            fresh.end(STOP_GRACE_S)
        if self._nursery is None:
            return
        with contextlib.suppress(OSError):
            if self._nursery.stdin is not None:
                self._nursery.stdin.close()
        try:
            self._nursery.wait(10)
        except subprocess.TimeoutExpired:
            self._nursery.kill()
            self._nursery.wait()
        self._reader.join(5)
        if self._nursery.stdout is not None:
            self._nursery.stdout.close()
