"""A small process that has torch and the model's code loaded, and forks a worker whenever it is asked to.

Loading torch and transformers takes seconds of CPU time in each process; a forked worker has them at once.

It is started by `helix_kit.runtime.launch.process` as ``python -m helix_kit.runtime.launch.fork_server MODEL_TYPE``. It
reads one JSON object a line, ``{"spawn": spec}``, and writes one a line: ``{"ready": pid}`` when it has loaded,
``{"pid": n}`` for each worker started, ``{"exit": pid}`` for each worker ended. When its input ends, because its parent
closed it or ended, it kills its workers and ends. It never uses CUDA, which does not work in a forked process.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import sys
import threading
from typing import Any, TextIO

from helix_kit.runtime.launch.preload import preload


def main() -> None:
    """Start workers until the input ends."""
    # Answers go to a private copy of stdout; whatever a library prints goes to stderr.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    # Ctrl-C in a terminal reaches the whole process group; the user's process decides what happens then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    preload(sys.argv[1])
    # A garbage collection in a worker would write to the header of every inherited object, and so copy all their memory
    # pages (97 MB in each worker, in one jump, after some ten thousand requests). Frozen objects are passed over.
    gc.collect()
    gc.freeze()
    server = _ForkServer(answers)
    print(json.dumps({"ready": os.getpid()}), file=answers)
    server.run()


class _ForkServer:
    """Reads requests from the standard input, and notices the ends of its workers."""

    def __init__(self, answers: TextIO) -> None:
        self._answers = answers
        # The kernel writes a byte to this pipe at each signal, which wakes up `select` when a worker ends.
        self._wake_in, wake_out = os.pipe()
        os.set_blocking(self._wake_in, False)
        os.set_blocking(wake_out, False)
        signal.set_wakeup_fd(wake_out, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        # Only this process holds the pipe's writing end open: the workers read its end when this process has ended.
        self._lifeline_in, self._lifeline_out = os.pipe()
        self._children: set[int] = set()

    def run(self) -> None:
        """Fork a worker for each line of the input; kill all workers at its end."""
        buffer = b""
        while True:
            readable, _, _ = select.select([0, self._wake_in], [], [])
            if self._wake_in in readable:
                with contextlib.suppress(BlockingIOError):
                    while os.read(self._wake_in, 4096):
                        pass
                for pid in self._reap():
                    print(json.dumps({"exit": pid}), file=self._answers)
            if 0 in readable:
                data = os.read(0, 1 << 16)
                if not data:
                    break
                buffer += data
                while b"\n" in buffer:
                    line, buffer = buffer.split(b"\n", 1)
                    self._fork(json.loads(line)["spawn"])
        self._kill_all()

    def _fork(self, spec: dict[str, Any]) -> None:
        pid = os.fork()
        if pid == 0:
            os.close(self._lifeline_out)
            self._answers.close()
            _run_child(spec, self._lifeline_in)
        self._children.add(pid)
        print(json.dumps({"pid": pid}), file=self._answers)

    def _reap(self) -> list[int]:
        """The workers that have ended since the last call."""
        ended = []
        for pid in list(self._children):
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(pid, os.WNOHANG)[0] == pid:
                    self._children.discard(pid)
                    ended.append(pid)
        return ended

    def _kill_all(self) -> None:
        for pid in self._children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in self._children:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _run_child(spec: dict[str, Any], lifeline: int) -> None:
    """Run a worker in the forked process; does not return."""
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        threading.Thread(target=_end_with_server, args=(lifeline,), daemon=True).start()
        from helix_kit.runtime.spec import WorkerSpec
        from helix_kit.runtime.worker.worker import run_worker

        run_worker(WorkerSpec.model_validate(spec))
        status = 0
    except BaseException as error:
        print(f"worker {spec.get('name')}: {type(error).__name__}: {error}", file=sys.stderr)
    finally:
        sys.stderr.flush()
        os._exit(status)


def _end_with_server(lifeline: int) -> None:
    os.read(lifeline, 1)
    os._exit(1)


if __name__ == "__main__":
    main()
