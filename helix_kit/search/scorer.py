"""Runs tasks of a search in a few worker processes, or in this process where there is one job.

The workers run `helix_kit.search.worker` and exchange lines of JSON with this process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait

from helix_kit._line_workers import LineWorkers
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
        self._workers: LineWorkers | None = None

    def __enter__(self) -> Scorer:
        """Start the workers; none where there is one job."""
        if self.jobs > 1:
            header = header_line(self.evaluator.problem, self.evaluator.requirements)
            self._workers = LineWorkers("helix_kit.search.worker", header, self.jobs).__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        """Kill the workers and close their pipes."""
        if self._workers:
            self._workers.__exit__(None, None, None)

    def run(self, tasks: Sequence[Task], stop: Callable[[], bool] = never) -> list[Candidate]:
        """The candidates of all tasks, in the order of the tasks."""
        if self._workers is None:
            return [c for task in tasks for c in task.run(self.evaluator, stop)]
        with ThreadPoolExecutor(self.jobs) as threads:
            asked = [threads.submit(_ask, self._workers, task) for task in tasks]
            try:
                while wait(asked, timeout=STOP_EVERY_S).not_done:
                    if stop():
                        self._workers.kill()
            except BaseException:
                # Ctrl-C, say. The threads wait for the workers, and this block waits for the threads.
                self._workers.kill()
                raise
            return [c for answer in asked for c in answer.result()]

    def begin(self, tasks: Sequence[Task]) -> None:
        """Let the workers do tasks whose results are of no interest, while this process goes on.

        A worker's first simulation loads the simulator, which takes seconds. Without workers nothing is done.
        """
        for task in tasks if self._workers else ():
            threading.Thread(target=_ask, args=(self._workers, task), daemon=True).start()


def _ask(workers: LineWorkers, task: Task) -> list[Candidate]:
    """The candidates that a worker answers; nothing once the workers are killed."""
    answer = workers.ask(task.to_json())
    return [] if answer is None else answer_of(answer)
