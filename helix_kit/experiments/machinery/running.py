"""Running many experiments: first what others need, several at a time, with the time left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from helix_kit.experiments.machinery.registry import (
    Context,
    NotHereError,
    Say,
    check_folder,
    get,
    is_current,
    provenance,
    run_experiment,
)

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
    skipped: str = ""
    """Why it could not be run on this machine."""


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
    check_folder(folder, fast=fast)
    times = {name: expected_seconds(name, folder, fast) for name in ordered}
    context = Context(fast, seed, say, folder)
    waiting, done, stale = list(ordered), set[str](), set[str]()

    def finish(name: str, ran: bool, seconds: float, skipped: str = "", running: Sequence[str] = ()) -> Done:
        done.add(name)
        left = sum(times[n] for n in [*waiting, *running]) / max(1, jobs)
        return Done(name, ran, seconds, left, len(done), len(ordered), skipped)

    def up_to_date() -> str | None:
        """A waiting one that need not run; asked here and not by a worker, which would take seconds to start."""
        for name in waiting:
            if not force and name not in stale and set(get(name).needs) <= done:
                if is_current(name, folder, context):
                    return name
                stale.add(name)
        return None

    if jobs <= 1:
        while waiting:
            name = waiting.pop(0)
            start(name, len(done) + 1, len(ordered))
            ran, seconds, skipped = _run(name, folder, context, force)
            yield finish(name, ran, seconds, skipped)
        return
    running: dict[Future[tuple[bool, float, str]], str] = {}
    # Longest first, so that no long one is left alone at the end; those that measure time last of all.
    waiting.sort(key=lambda n: (get(n).timed, -times[n]))
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        try:
            while waiting or running:
                while current := up_to_date():
                    waiting.remove(current)
                    yield finish(current, False, 0.0, running=list(running.values()))
                for chosen in _next(waiting, list(running.values()), done, jobs):
                    waiting.remove(chosen)
                    start(chosen, len(done) + 1, len(ordered))
                    running[pool.submit(_run_in_worker, chosen, folder, fast, seed, force)] = chosen
                if not running:
                    continue
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in sorted(finished, key=lambda f: running[f]):
                    name = running.pop(future)
                    ran, seconds, skipped = future.result()
                    yield finish(name, ran, seconds, skipped, list(running.values()))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _next(waiting: Sequence[str], running: Sequence[str], done: set[str], jobs: int) -> list[str]:
    """What to start now: those whose needs are met, as many as there is room for; a timed one only by itself."""
    ready = [n for n in waiting if set(get(n).needs) <= done]
    if any(get(n).timed for n in running):
        return []
    together = [n for n in ready if not get(n).timed][: jobs - len(running)]
    return together or ([] if running else ready[:1])


def _run(name: str, folder: Path, context: Context, force: bool) -> tuple[bool, float, str]:
    """Whether it ran, its seconds, and why not if this machine cannot."""
    began = time.perf_counter()
    try:
        ran = run_experiment(name, folder, context, force=force)
    except NotHereError as error:
        return False, time.perf_counter() - began, str(error)
    return ran, time.perf_counter() - began, ""


def _run_in_worker(name: str, folder: Path, fast: bool, seed: int, force: bool) -> tuple[bool, float, str]:
    return _run(name, folder, Context(fast, seed), force)
