"""Workers as threads of this process, for tests and debugging.

They share one Python interpreter, so that several workers are not faster together than one.
"""

from __future__ import annotations

import logging
import threading

from helix_kit.runtime.launch.launcher import WorkerProcess
from helix_kit.runtime.launch.preload import preload
from helix_kit.runtime.launch.ranks import RankedWorker, start_ranks
from helix_kit.runtime.spec import WorkerSpec
from helix_kit.runtime.weights.checkpoint import Checkpoint

log = logging.getLogger(__name__)


class InprocWorker:
    """A worker, or one of its ranks, in a thread."""

    def __init__(self, spec: WorkerSpec) -> None:
        from helix_kit.runtime.worker.worker import worker_of

        self._worker = worker_of(spec)
        self._thread = threading.Thread(target=self._run, name=f"helix-kit-{spec.name}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._worker.run()
        except Exception:
            log.exception("worker %s failed", self._worker.spec.name)

    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def is_stopped(self) -> bool:
        """False: the worker shares the process of the caller, which runs if it can ask."""
        return False

    def kill(self) -> None:
        """Make the thread end soon, without a message to anybody, as if its process had been killed."""
        self._worker.halt()

    def join(self, timeout_s: float) -> None:
        """Wait for the end of the thread."""
        self._thread.join(timeout_s)


class InprocLauncher:
    """Starts workers as threads."""

    host = "127.0.0.1"

    def __init__(self) -> None:
        self._workers: list[InprocWorker] = []
        self._ranked: list[RankedWorker] = []

    def start(self, spec: WorkerSpec) -> WorkerProcess:
        """Start a worker and return at once. The first start of a model family loads its code."""
        preload("" if spec.stand_in else Checkpoint(spec.weights).config["model_type"])
        if spec.ranks and spec.rendezvous is None:
            self._ranked.append(start_ranks(self._start, spec))
            return self._ranked[-1]
        return self._start(spec)

    def _start(self, spec: WorkerSpec) -> InprocWorker:
        self._workers.append(InprocWorker(spec))
        return self._workers[-1]

    def close(self) -> None:
        """End all workers."""
        for worker in self._workers:
            worker.join(1.0)
            worker.kill()
        for worker in self._workers:
            worker.join(30.0)
        for ranked in self._ranked:
            ranked.remove_folder()
