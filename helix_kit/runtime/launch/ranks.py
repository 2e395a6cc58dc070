"""A worker whose layers several processes compute together: it is up while all of them are."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from helix_kit.runtime.launch.launcher import WorkerProcess
from helix_kit.runtime.spec import WorkerSpec


class RankedWorker:
    """The ranks of one worker. The end of one of them is the end of the worker."""

    def __init__(self, ranks: Sequence[WorkerProcess], folder: Path) -> None:
        self.ranks, self._folder = ranks, folder

    def is_alive(self) -> bool:
        """Whether all ranks run."""
        return all(rank.is_alive() for rank in self.ranks)

    def is_stopped(self) -> bool | None:
        """Whether one of the ranks is stopped; None where that cannot be seen of all."""
        states = [rank.is_stopped() for rank in self.ranks]
        if True in states:
            return True
        return None if None in states else False

    def kill(self) -> None:
        """End all ranks at once."""
        for rank in self.ranks:
            rank.kill()
        self.remove_folder()

    def remove_folder(self) -> None:
        """Remove the file through which the ranks found each other."""
        shutil.rmtree(self._folder, ignore_errors=True)


def start_ranks(start: Callable[[WorkerSpec], WorkerProcess], spec: WorkerSpec) -> RankedWorker:
    """Start every rank of a worker by `start`."""
    folder = Path(tempfile.mkdtemp(prefix="helix-kit-ranks-"))
    rendezvous = str(folder / "store")
    started: list[WorkerProcess] = []
    try:
        for rank in range(len(spec.ranks)):
            started.append(start(spec.of_rank(rank, rendezvous)))
    except BaseException:
        RankedWorker(started, folder).kill()
        raise
    return RankedWorker(started, folder)
