"""The compiled steps of annealing, made ready beside other work.

numba compiles them on first use, which takes several seconds, and keeps the result in a cache. A plan cannot wait for
that within a time limit of a few seconds, so another process compiles while this one plans.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

NAMES = ("anneal_coverage", "anneal_flow")
"""Functions of `moves` that `Annealing` calls."""


class Compilation:
    """Whether the compiled steps can be used at once. Use it as a context manager.

    Examples
    --------
    >>> with Compilation() as compilation:
    ...     ready = compilation.is_ready()
    >>> ready in (True, False)
    True
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = False

    def __enter__(self) -> Compilation:
        """Start compiling in another process, unless the cache holds the result."""
        if is_cached():
            self._ready = True
        else:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "helix_kit.placement.annealing.compiled"],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        """End the other process, if it still compiles."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def wait(self) -> None:
        """Wait until the other process has compiled."""
        if self._process is not None:
            self._process.wait()

    def is_ready(self) -> bool:
        """Whether the steps are in the cache."""
        if not self._ready and self._process is not None and self._process.poll() == 0:
            self._ready = is_cached()
        return self._ready

    def is_pending(self) -> bool:
        """Whether another process still compiles."""
        return self._process is not None and self._process.poll() is None


def is_cached() -> bool:
    """Whether numba's cache holds every function for this state of the source."""
    from helix_kit.placement.annealing import moves

    written_s = Path(moves.__file__).stat().st_mtime
    for name in NAMES:
        function = getattr(moves, name)
        if function.signatures:
            continue
        kept = Path(function.stats.cache_path).glob(f"moves.{name}-*.nbi")
        if not any(index.stat().st_mtime >= written_s for index in kept):
            return False
    return True


def compile_all() -> None:
    """Call every function once with the types that `Annealing` uses."""
    import numpy as np

    from helix_kit.flow.arrays import Capacities
    from helix_kit.placement.annealing.moves import Nodes, Ranges, Schedule, anneal_coverage, anneal_flow

    def ranges() -> Ranges:
        return Ranges(np.array([0, 1], np.int64), np.array([1, 2], np.int64))

    columns = np.ones((3, 3), np.int64)
    nodes = Nodes(np.ones((2, 3)), np.array([2, 2], np.int64), np.array([0, 1], np.int64), columns)
    schedule = Schedule(0.1, 0.1, 1, 0)
    anneal_coverage(nodes, ranges(), ranges(), 2, 2.0, schedule)
    ends = np.ones(2, np.int64)
    capacities = Capacities(np.ones((2, 3), np.int64), np.ones((2, 2), np.int64), ends, ends, 9, 9, columns)
    anneal_flow(nodes, capacities, ranges(), ranges(), 2, True, 2.0, schedule)


if __name__ == "__main__":
    compile_all()
