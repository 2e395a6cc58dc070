"""Runs tasks of a search in a few worker processes, or in this process where there is one job.

Workers are started as ``python -m helix_kit.search.worker`` and exchange lines of JSON with this process. So planning
works from a script, a notebook or a thread alike, and nothing is unpickled.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from queue import SimpleQueue

from helix_kit.errors import HelixKitError
from helix_kit.search.candidate import Candidate
from helix_kit.search.evaluate import Evaluator, never
from helix_kit.search.messages import Task, answer_of, header_line

STOP_EVERY_S = 0.2
"""Seconds between two calls of `stop` while the workers work."""


class Scorer:
    """Worker processes for one evaluator; use it as a context manager.

    Once a call is told to stop, the workers are killed in the middle of their work. That call and all later ones return
    only what was finished, mostly nothing.
    """

    def __init__(self, evaluator: Evaluator, jobs: int) -> None:
        self.evaluator, self.jobs = evaluator, jobs
        self._workers: list[subprocess.Popen[str]] = []
        self._free: SimpleQueue[subprocess.Popen[str]] = SimpleQueue()
        self._killed = False

    def __enter__(self) -> Scorer:
        """Start the workers; none where there is one job."""
        if self.jobs > 1:
            header = header_line(self.evaluator.problem, self.evaluator.requirements)
            for _ in range(self.jobs):
                # Each worker has a session of its own: Ctrl-C then reaches only the planner, which keeps the best plan.
                worker = subprocess.Popen(
                    [sys.executable, "-m", "helix_kit.search.worker"],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
                )  # fmt: skip
                self._workers.append(worker)
                self._free.put(worker)
                _send(worker, header)
        return self

    def __exit__(self, *_: object) -> None:
        """Kill the workers and close their pipes."""
        self._kill()
        for worker in self._workers:
            worker.wait()
            for stream in (worker.stdin, worker.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()

    def run(self, tasks: Sequence[Task], stop: Callable[[], bool] = never) -> list[Candidate]:
        """The candidates of all tasks, in the order of the tasks."""
        if not self._workers:
            return [c for task in tasks for c in task.run(self.evaluator, stop)]
        with ThreadPoolExecutor(self.jobs) as threads:
            asked = [threads.submit(self._ask, task) for task in tasks]
            while wait(asked, timeout=STOP_EVERY_S).not_done:
                if stop():
                    self._kill()
            return [c for answer in asked for c in answer.result()]

    def begin(self, tasks: Sequence[Task]) -> None:
        """Let the workers do tasks whose results are of no interest, while this process goes on.

        A worker's first simulation loads the simulator, which takes seconds. Without workers nothing is done.
        """
        for task in tasks if self._workers else ():
            threading.Thread(target=self._ask, args=(task,), daemon=True).start()

    def _ask(self, task: Task) -> list[Candidate]:
        """The answer of the first worker that is free; nothing once the workers are killed."""
        worker = self._free.get()
        line = ""
        with contextlib.suppress(BrokenPipeError):
            _send(worker, task.to_json())
            assert worker.stdout is not None
            line = worker.stdout.readline()
        self._free.put(worker)
        if line.endswith("\n"):
            return answer_of(line)
        if self._killed:
            return []
        raise HelixKitError("a simulation worker ended before it answered; its message is above")

    def _kill(self) -> None:
        self._killed = True
        for worker in self._workers:
            worker.kill()


def _send(worker: subprocess.Popen[str], line: str) -> None:
    assert worker.stdin is not None
    worker.stdin.write(line + "\n")
    worker.stdin.flush()
