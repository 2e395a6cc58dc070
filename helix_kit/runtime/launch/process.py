"""Workers as processes of this machine (the default), forked from a nursery that has everything loaded."""

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


class ProcessLauncher:
    """Starts a nursery for `model_type` at once (it loads in the background), then workers when asked."""

    host = "127.0.0.1"

    def __init__(self, model_type: str, *, threads: int = 1) -> None:
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(threads),
            # Threads that wait for work must not spin: the other workers need the cores.
            "OMP_WAIT_POLICY": "PASSIVE",
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
        }
        self._nursery = subprocess.Popen(
            [sys.executable, "-m", "helix_kit.runtime.launch.nursery", model_type],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )
        self._workers: dict[int, ProcessWorker] = {}
        self._answers: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True, name="helix-kit-nursery")
        self._reader.start()
        self._is_ready = False

    def _read(self) -> None:
        assert self._nursery.stdout is not None
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

    def start(self, spec: WorkerSpec) -> ProcessWorker:
        """Start a worker; the first call waits until the nursery has loaded torch and the model's code."""
        if not self._is_ready:
            self._answer()
            self._is_ready = True
        assert self._nursery.stdin is not None
        line = json.dumps({"spawn": spec.model_dump(mode="json")}) + "\n"
        try:
            self._nursery.stdin.write(line.encode())
            self._nursery.stdin.flush()
        except OSError as error:
            raise HelixKitError(f"workers cannot be started: {error}") from None
        return self._workers[self._answer()]

    def close(self) -> None:
        """End all workers (those told to stop get a moment), then the nursery; no process is left behind."""
        for worker in list(self._workers.values()):
            worker._ended.wait(STOP_GRACE_S)
            worker.kill()
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
