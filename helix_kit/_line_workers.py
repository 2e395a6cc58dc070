"""Worker processes that answer lines of text: one line is asked, one line is answered.

A worker is started as ``python -m MODULE``. So the callers work from a script, a notebook or a thread alike, and
nothing is unpickled. `LineWorkers` is the caller's side, `serve` the worker's. `start_child` starts a process that
answers nothing.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from types import TracebackType

from helix_kit.errors import HelixKitError

LOOK_EVERY_S = 0.25
"""Seconds between two looks of a worker at whether its caller is still there."""


class LineWorkers:
    """A few processes of one program, each of which has read the same header; a context manager.

    Each worker has a session of its own: Ctrl-C then reaches only the caller, which decides what is kept.
    """

    def __init__(self, module: str, header: str, count: int) -> None:
        self._module, self._header, self._count = module, header, count
        self._workers: list[subprocess.Popen[str]] = []
        self._free: SimpleQueue[subprocess.Popen[str]] = SimpleQueue()
        self._killed = False

    def __enter__(self) -> LineWorkers:
        """Start the workers."""
        for _ in range(self._count):
            worker = subprocess.Popen(
                [sys.executable, "-m", self._module],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
            )  # fmt: skip
            self._workers.append(worker)
            _send(worker, self._header)
            self._free.put(worker)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill the workers and close their pipes."""
        self.kill()
        for worker in self._workers:
            worker.wait()
            for stream in (worker.stdin, worker.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()

    def ask(self, line: str) -> str | None:
        """The answer of the first worker that is free; None once the workers are killed. Threads may call it.

        Raises HelixKitError if the worker ends before it has answered.
        """
        worker = self._free.get()
        answer = ""
        with contextlib.suppress(BrokenPipeError):
            _send(worker, line)
            assert worker.stdout is not None
            answer = worker.stdout.readline()
        self._free.put(worker)
        if answer.endswith("\n"):
            return answer
        if self._killed:
            return None
        raise HelixKitError(f"a worker process ({self._module}) ended before it answered; its message is above")

    def kill(self) -> None:
        """End the workers in the middle of their work; every `ask`, running or later, returns None."""
        self._killed = True
        for worker in self._workers:
            worker.kill()


def serve(answers: Callable[[Iterator[str]], Iterator[str]]) -> None:
    """The program of a worker: print the line that `answers` has for each line of standard input, until it ends.

    `answers` gets all lines, the header first. It must give an answer before it reads the next line, since the caller
    sends a line only after it has read an answer. The worker ends with its caller, also in the middle of an answer.
    """
    end_with_caller()
    try:
        for answer in answers(iter(sys.stdin)):
            print(answer, flush=True)
    except BrokenPipeError:
        # The caller has ended, perhaps killed: no process reads an answer, and a traceback would only be noise.
        os._exit(1)


def start_child(statements: str) -> subprocess.Popen[bytes]:
    """Run Python statements in a process without input and output. Ctrl-C does not reach it; it ends with this one."""
    program = f"from {__name__} import end_with_caller; end_with_caller(); {statements}"
    return subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip


def end_with_caller() -> None:
    """From now on this process ends soon after its parent, which may have been killed: nothing waits for the result."""
    caller = os.getppid()

    def watch() -> None:
        while os.getppid() == caller:
            time.sleep(LOOK_EVERY_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _send(worker: subprocess.Popen[str], line: str) -> None:
    assert worker.stdin is not None
    worker.stdin.write(line + "\n")
    worker.stdin.flush()
