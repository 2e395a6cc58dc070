"""Workers as processes of this machine (the default launcher).

Workers that compute on a CPU are forked from a server that has everything loaded (`fork_server`). Workers that compute
on a GPU are started afresh, which takes seconds longer, because CUDA does not work in a forked process.
"""

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
from helix_kit.runtime.launch.launcher import WorkerProcess
from helix_kit.runtime.launch.ranks import RankedWorker, start_ranks
from helix_kit.runtime.spec import WorkerSpec

SERVER_START_S = 180.0
"""Time for the fork server to load torch, and to start a worker."""
STOP_GRACE_S = 2.0
"""Time for a worker that was told to stop, before it is killed."""


def is_stopped(pid: int) -> bool | None:
    """Whether a process of this machine is stopped (SIGSTOP, a debugger); None on a system without /proc.

    >>> import os
    >>> is_stopped(os.getpid()) in {False, None}
    True
    """
    try:
        # pid (name) state ...: the name may hold spaces and brackets.
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            state = file.read().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return None
    return state in {"T", "t"}


class ForkedWorker:
    """A worker process that the fork server started."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.ended = threading.Event()
        """Set when the fork server reports its end, or has ended itself."""

    def is_alive(self) -> bool:
        """Whether the process has not ended; a stopped one has not."""
        return not self.ended.is_set()

    def is_stopped(self) -> bool | None:
        """Whether the process is stopped; None where this system does not say."""
        return is_stopped(self.pid)

    def kill(self) -> None:
        """End it by SIGKILL, which also ends a stopped process."""
        if self.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


class FreshWorker:
    """A worker process that was started, not forked."""

    def __init__(self, spec: WorkerSpec, environment: dict[str, str]) -> None:
        command = [sys.executable, "-m", "helix_kit.runtime.launch.fresh_process"]
        # Nothing reads its output: whatever a library prints goes to stderr.
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=2, env=environment)
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended already, which is noticed like any other end
            self._process.stdin.write(spec.model_dump_json().encode() + b"\n")
            self._process.stdin.flush()

    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def is_stopped(self) -> bool | None:
        """Whether the process is stopped; None where this system does not say."""
        return is_stopped(self._process.pid)

    def kill(self) -> None:
        """End it by SIGKILL."""
        self._process.kill()

    def end(self, grace_s: float) -> None:
        """Wait for its end, and kill it after `grace_s`."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(grace_s)
        self.kill()
        self._process.wait()
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()


class ProcessLauncher:
    """Starts workers as processes.

    Parameters
    ----------
    model_type
        Family of the model: the code that the fork server loads.
    threads
        Torch threads of each worker.
    forks
        Whether workers on CPUs are expected: the fork server then begins to load at once, in the background.
    """

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
        self._ranked: list[RankedWorker] = []
        self._forked: dict[int, ForkedWorker] = {}
        """By process id; added to by the thread that reads the server's answers."""
        self._answers: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        """Process ids, as the server answers: first its own, then one for each worker. None: the server has ended."""
        self._server: subprocess.Popen[bytes] | None = None
        self._is_ready = False
        if forks:
            self._start_server()

    @property
    def server_pid(self) -> int | None:
        """Process id of the fork server; None when there is none."""
        return None if self._server is None else self._server.pid

    def _start_server(self) -> subprocess.Popen[bytes]:
        self._server = subprocess.Popen(
            [sys.executable, "-m", "helix_kit.runtime.launch.fork_server", self._model_type],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=self._environment,
        )
        self._reader = threading.Thread(target=self._read_answers, daemon=True, name="helix-kit-fork-server")
        self._reader.start()
        return self._server

    def _read_answers(self) -> None:
        assert self._server is not None and self._server.stdout is not None
        for line in self._server.stdout:
            answer = json.loads(line)
            if "ready" in answer:
                self._answers.put(answer["ready"])
            elif "pid" in answer:
                # Added before the next line is read, so that the worker's end cannot be missed.
                self._forked[answer["pid"]] = ForkedWorker(answer["pid"])
                self._answers.put(answer["pid"])
            elif worker := self._forked.get(answer["exit"]):
                worker.ended.set()
        for worker in list(self._forked.values()):
            worker.ended.set()
        self._answers.put(None)

    def _next_answer(self) -> int:
        try:
            pid = self._answers.get(timeout=SERVER_START_S)
        except queue.Empty:
            pid = None
        if pid is None:
            raise HelixKitError("workers cannot be started: their parent process has ended (see its messages above)")
        return pid

    def start(self, spec: WorkerSpec) -> WorkerProcess:
        """Start a worker, with a process for each of its ranks.

        The first one on a CPU waits until the fork server has loaded torch and the model's code.
        """
        if spec.ranks and spec.rendezvous is None:
            self._ranked.append(start_ranks(self._start, spec))
            return self._ranked[-1]
        return self._start(spec)

    def _start(self, spec: WorkerSpec) -> ForkedWorker | FreshWorker:
        if spec.device != "cpu":
            self._fresh.append(FreshWorker(spec, self._environment))
            return self._fresh[-1]
        server = self._server or self._start_server()
        if not self._is_ready:
            self._next_answer()
            self._is_ready = True
        assert server.stdin is not None
        line = json.dumps({"spawn": spec.model_dump(mode="json")}) + "\n"
        try:
            server.stdin.write(line.encode())
            server.stdin.flush()
        except OSError as error:
            raise HelixKitError(f"workers cannot be started: {error}") from None
        return self._forked[self._next_answer()]

    def close(self) -> None:
        """End all workers, after a moment for those that were told to stop, then the fork server."""
        for worker in list(self._forked.values()):
            worker.ended.wait(STOP_GRACE_S)
            worker.kill()
        for fresh in self._fresh:
            fresh.end(STOP_GRACE_S)
        for ranked in self._ranked:
            ranked.remove_folder()
        if self._server is None:
            return
        with contextlib.suppress(OSError):
            if self._server.stdin is not None:
                self._server.stdin.close()
        try:
            self._server.wait(10)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()
        self._reader.join(5)
        if self._server.stdout is not None:
            self._server.stdout.close()
