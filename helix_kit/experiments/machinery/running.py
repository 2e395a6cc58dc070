"""Runs many experiments: needed ones first, several at a time, with an estimate of the time left."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from helix_kit._line_workers import LineWorkers
from helix_kit.errors import HelixKitError
from helix_kit.experiments.machinery.catalogue import experiment_named, needs_of
from helix_kit.experiments.machinery.files import check_folder, provenance
from helix_kit.experiments.machinery.recording import is_current, run_experiment
from helix_kit.experiments.machinery.registry import Context, NotAvailableError, Say, say_nothing

FAST_SHARE = 0.1
"""About the share of a full run's time that a fast run takes, for the estimate before the first run."""
WORKER = "helix_kit.experiments.machinery.worker"
"""The program of the processes in which experiments run side by side."""
Start = Callable[[str, int, int], None]
"""Called with (name, number, total) as an experiment starts."""


@dataclass(frozen=True)
class Done:
    """An experiment that ran, was up to date, or was skipped.

    Examples
    --------
    >>> Done("azure-trace", ran=True, seconds=0.4, left_s=0.0, index=1, total=1).skipped
    ''
    """

    name: str
    """The experiment."""
    ran: bool
    """Whether it was computed or drawn again; False if it was up to date or skipped."""
    seconds: float
    """How long it took."""
    left_s: float
    """Estimated seconds until all experiments are done."""
    index: int
    """How many experiments are done, this one included."""
    total: int
    """How many experiments there are."""
    skipped: str = ""
    """Why it cannot run on this machine; empty if it can."""


class Ran(NamedTuple):
    """What became of one experiment."""

    ran: bool
    """Whether it was computed or drawn again."""
    seconds: float
    skipped: str = ""
    """Why this machine cannot run it; empty if it can."""


def in_order(names: Sequence[str], *, fast: bool = False) -> list[str]:
    """`names` and the experiments that they need, needed ones first. Raises InputError for an unknown name."""
    ordered: list[str] = []

    def add(name: str) -> None:
        for other in needs_of(name, fast):
            add(other)
        if name not in ordered:
            ordered.append(name)

    for name in names:
        add(name)
    return ordered


def expected_seconds(name: str, folder: Path, fast: bool) -> float:
    """How long the last run of this kind took, or else the time that the experiment states."""
    last = provenance(name, folder)
    if "seconds" in last and last.get("inputs", {}).get("fast") == fast:
        return float(last["seconds"]) + 1.0
    return experiment_named(name).minutes * 60 * (FAST_SHARE if fast else 1.0) + 1.0


def run_all(
    names: Sequence[str],
    folder: Path,
    *,
    fast: bool = False,
    seed: int = 0,
    force: bool = False,
    jobs: int = 1,
    say: Say = say_nothing,
    start: Start = lambda name, index, total: None,
) -> Iterator[Done]:
    """Run experiments and those that they need, and yield each as it is done.

    Parameters
    ----------
    names
        The experiments.
    folder
        Where their files are written.
    fast
        Shorten the runs.
    seed
        Seed of everything that is drawn at random.
    force
        Run the experiments in `names` even if their results are up to date. Those that they need are left alone.
    jobs
        How many run at the same time, each in a process of its own.
    say
        Called with messages of the experiment that runs; only with one job.
    start
        Called with (name, number, total) as an experiment starts.

    Yields
    ------
    Done
        An experiment that ran, was up to date, or cannot run on this machine.

    Raises
    ------
    InputError
        For an unknown name, or a folder with results of the other kind (fast or full).
    Exception
        Any error of an experiment; it ends the whole run. With several jobs it is a HelixKitError with the message.

    Examples
    --------
    >>> [done.name for done in run_all(["agreement"], Path("figures"), jobs=2)]    # doctest: +SKIP
    ['own-plans', 'single-cluster', ..., 'agreement']
    """
    ordered = in_order(names, fast=fast)
    check_folder(folder, fast=fast)
    batch = _Batch(
        folder=folder,
        context=Context(fast, seed, say, folder),
        forced=frozenset(names) if force else frozenset(),
        jobs=jobs,
        expected_s={name: expected_seconds(name, folder, fast) for name in ordered},
        waiting=ordered,
        total=len(ordered),
    )
    yield from _one_by_one(batch, start) if jobs <= 1 else _side_by_side(batch, start)


@dataclass
class _Batch:
    """The experiments of one call of `run_all`, and how far they are."""

    folder: Path
    context: Context
    forced: frozenset[str]
    jobs: int
    expected_s: dict[str, float]
    waiting: list[str]
    total: int
    done: set[str] = field(default_factory=set)
    stale: set[str] = field(default_factory=set)

    def finish(self, name: str, ran: bool, seconds: float, skipped: str = "", running: Sequence[str] = ()) -> Done:
        """Count `name` as done."""
        self.done.add(name)
        left_s = sum(self.expected_s[n] for n in [*self.waiting, *running]) / max(1, self.jobs)
        return Done(name, ran, seconds, left_s, len(self.done), self.total, skipped)

    def next_up_to_date(self) -> str | None:
        """A waiting experiment that need not run. Checked here because a worker process takes seconds to start."""
        for name in self.waiting:
            needs = set(needs_of(name, self.context.fast))
            if name not in self.forced and name not in self.stale and needs <= self.done:
                if is_current(name, self.folder, self.context):
                    return name
                self.stale.add(name)
        return None


def _one_by_one(batch: _Batch, start: Start) -> Iterator[Done]:
    while batch.waiting:
        name = batch.waiting.pop(0)
        start(name, len(batch.done) + 1, batch.total)
        yield batch.finish(name, *run_one(name, batch.folder, batch.context, name in batch.forced))


def _side_by_side(batch: _Batch, start: Start) -> Iterator[Done]:
    """Run in worker processes.

    The longest start first, so that none of them runs alone at the end. Experiments that measure time start last.
    """
    waiting, context = batch.waiting, batch.context
    waiting.sort(key=lambda n: (experiment_named(n).timed, -batch.expected_s[n]))
    running: dict[Future[str | None], str] = {}
    header = json.dumps({"folder": str(batch.folder), "fast": context.fast, "seed": context.seed})
    # Whatever ends this block kills the workers first. The threads, which wait for them, then end as well.
    with ThreadPoolExecutor(batch.jobs) as threads, ExitStack() as stack:
        workers: LineWorkers | None = None
        while waiting or running:
            while current := batch.next_up_to_date():
                waiting.remove(current)
                yield batch.finish(current, False, 0.0, running=list(running.values()))
            for name in next_to_start(waiting, list(running.values()), batch.done, batch.jobs, fast=context.fast):
                if workers is None:
                    workers = stack.enter_context(LineWorkers(WORKER, header, batch.jobs))
                waiting.remove(name)
                start(name, len(batch.done) + 1, batch.total)
                line = json.dumps({"name": name, "force": name in batch.forced})
                running[threads.submit(workers.ask, line)] = name
            if not running:
                continue
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in sorted(finished, key=lambda f: running[f]):
                name = running.pop(future)
                yield batch.finish(name, *_answer(future.result()), running=list(running.values()))


def _answer(line: str | None) -> Ran:
    """What a worker answered. Raises HelixKitError with the message of an experiment that failed."""
    assert line is not None, "workers are killed only at the end"
    answer = json.loads(line)
    if "error" in answer:
        raise HelixKitError(answer["error"])
    return Ran(**answer)


def next_to_start(
    waiting: Sequence[str], running: Sequence[str], done: set[str], jobs: int, *, fast: bool = False
) -> list[str]:
    """The experiments to start now: those whose needs are met, up to `jobs` at a time, a timed one only alone."""
    ready = [n for n in waiting if set(needs_of(n, fast)) <= done]
    if any(experiment_named(n).timed for n in running):
        return []
    together = [n for n in ready if not experiment_named(n).timed][: jobs - len(running)]
    return together or ([] if running else ready[:1])


def run_one(name: str, folder: Path, context: Context, force: bool) -> Ran:
    """Run an experiment in this process."""
    started = time.perf_counter()
    try:
        ran = run_experiment(name, folder, context, force=force)
    except NotAvailableError as error:
        return Ran(False, time.perf_counter() - started, str(error))
    return Ran(ran, time.perf_counter() - started)
