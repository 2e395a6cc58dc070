"""Running many experiments: first what others need, several at a time, with the time left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from helix_kit.experiments.registry import Context, Say, get, provenance, run_experiment

FAST_SHARE = 0.1
"""About what a fast run takes of a full one, where no earlier run tells."""


@dataclass(frozen=True)
class Done:
    """One experiment that has been dealt with."""

    name: str
    ran: bool
    seconds: float
    left_s: float
    """About the seconds until all are done."""
    index: int
    total: int


def in_order(names: Sequence[str]) -> list[str]:
    """`names` and what they need, needed ones first. Raises InputError for an unknown name."""
    ordered: list[str] = []

    def add(name: str) -> None:
        for other in get(name).needs:
            add(other)
        if name not in ordered:
            ordered.append(name)

    for name in names:
        add(name)
    return ordered


def expected_seconds(name: str, folder: Path, fast: bool) -> float:
    """What the last run took, else what the experiment says of itself."""
    last = provenance(name, folder)
    if "seconds" in last and last.get("inputs", {}).get("fast") == fast:
        return float(last["seconds"]) + 1.0
    return get(name).minutes * 60 * (FAST_SHARE if fast else 1.0) + 1.0


def run_all(
    names: Sequence[str],
    folder: Path,
    *,
    fast: bool = False,
    seed: int = 0,
    force: bool = False,
    jobs: int = 1,
    say: Say = lambda message: None,
    start: Callable[[str, int, int], None] = lambda name, index, total: None,
) -> Iterator[Done]:
    """Run the experiments, `jobs` at a time, and tell of each as it is done; an error ends the whole run.

    With one job, `say` gets the messages of the experiment that runs.
    """
    ordered = in_order(names)
    times = {name: expected_seconds(name, folder, fast) for name in ordered}
    began = {}
    if jobs <= 1:
        for index, name in enumerate(ordered, start=1):
            start(name, index, len(ordered))
            began[name] = time.perf_counter()
            ran = run_experiment(name, folder, Context(fast, seed, say), force=force)
            left = sum(times[n] for n in ordered[index:])
            yield Done(name, ran, time.perf_counter() - began[name], left, index, len(ordered))
        return
    waiting, running, done = list(ordered), dict[Future[tuple[bool, float]], str](), set[str]()
    # Longest first, so that no long one is left alone at the end.
    waiting.sort(key=lambda n: -times[n])
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        try:
            while waiting or running:
                free = [n for n in waiting if set(get(n).needs) <= done][: jobs - len(running)]
                for name in free:
                    waiting.remove(name)
                    start(name, len(done) + 1, len(ordered))
                    running[pool.submit(_run_in_worker, name, folder, fast, seed, force)] = name
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in sorted(finished, key=lambda f: running[f]):
                    name = running.pop(future)
                    ran, seconds = future.result()
                    done.add(name)
                    left = sum(times[n] for n in [*waiting, *running.values()]) / jobs
                    yield Done(name, ran, seconds, left, len(done), len(ordered))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _run_in_worker(name: str, folder: Path, fast: bool, seed: int, force: bool) -> tuple[bool, float]:
    began = time.perf_counter()
    ran = run_experiment(name, folder, Context(fast, seed), force=force)
    return ran, time.perf_counter() - began
