"""Simulate and vary many candidates: a few worker processes, spoken to in JSON lines.

Workers are started as ``python -m helix_kit.search.worker``, so that planning works from a script, a notebook or a
thread alike, and nothing is unpickled.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from queue import SimpleQueue
from typing import Any

from helix_kit.errors import HelixKitError
from helix_kit.flow import Flow
from helix_kit.placement.plan import Plan
from helix_kit.placement.problem import Problem
from helix_kit.placement.watch import Watch
from helix_kit.search.ease import Ease
from helix_kit.search.evaluate import Candidate, Evaluator, Rules, Setting
from helix_kit.search.moves import Layout

STOP_EVERY_S = 0.2
"""How often it is asked whether to stop while workers work."""


def never() -> bool:
    """Work goes on to its end."""
    return False


@dataclass(frozen=True)
class Step:
    """One step of local search from `parent`; see `Evaluator.explore`."""

    parent: Layout
    seed: int
    picks: int
    ease: Ease = field(default_factory=dict)


class Scorer:
    """Worker processes for one problem; use as a context manager.

    Where a method is told to `stop`, the workers end at once, and what is asked of them from then on finds nothing.
    """

    def __init__(self, problem: Problem, jobs: int, rules: Rules | None = None) -> None:
        self.here = Evaluator(problem, rules or Rules())
        self.jobs = jobs
        self._workers: list[subprocess.Popen[str]] = []
        self._free: SimpleQueue[subprocess.Popen[str]] = SimpleQueue()
        self._ended = False

    def __enter__(self) -> Scorer:
        """Start the workers; with one job there are none, and work is done here."""
        if self.jobs > 1:
            plan = _empty_plan(self.here.problem).model_dump(mode="json")
            header = json.dumps({"plan": plan, "rules": asdict(self.here.rules)})
            for _ in range(self.jobs):
                worker = subprocess.Popen(
                    [sys.executable, "-m", "helix_kit.search.worker"],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
                )  # fmt: skip
                # In a session of their own, so that Ctrl-C reaches the planner alone, which keeps the best.
                self._workers.append(worker)
                self._free.put(worker)
                _send(worker, header)
        return self

    def __exit__(self, *_: object) -> None:
        """End the workers."""
        self._end()
        for worker in self._workers:
            worker.wait()
            for stream in (worker.stdin, worker.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()

    def simulate(
        self, candidates: Sequence[Candidate], setting: Setting, stop: Callable[[], bool] = never
    ) -> list[Candidate]:
        """Each candidate with what it serves, in the order given."""
        if not self._workers:
            return [self.here.simulate(c, setting) for c in candidates if not stop()]
        tasks = [{"setting": asdict(setting), "candidate": encode(c)} for c in candidates]
        return [made for answer in self._ask(tasks, stop) for made in answer]

    def explore(
        self,
        steps: Sequence[Step],
        setting: Setting,
        known: Collection[str],
        stop: Callable[[], bool] = never,
    ) -> list[Candidate]:
        """All that `steps` found and simulated, in their order."""
        if not self._workers:
            return [
                c
                for s in steps
                for c in self.here.explore(
                    s.parent, setting, seed=s.seed, known=known, picks=s.picks, ease=s.ease, stop=stop
                )
            ]  # fmt: skip
        shared = {"setting": asdict(setting), "known": sorted(known)}
        return [c for answer in self._ask([{**shared, "step": asdict(s)} for s in steps], stop) for c in answer]

    def polish(
        self,
        parents: Sequence[Layout],
        *,
        seed: int,
        rounds: int,
        seconds: float,
        stop: Callable[[], bool] = never,
    ) -> list[Candidate]:
        """What `Evaluator.polish` makes of each within so many seconds, in their order."""
        if not self._workers:
            clock = Watch(seconds, stop=stop)
            return [c for p in parents for c in self.here.polish(p, seed=seed, rounds=rounds, over=clock.is_over)]
        tasks = [{"polish": {"parent": p, "seed": seed, "rounds": rounds, "seconds": seconds}} for p in parents]
        return [c for answer in self._ask(tasks, stop) for c in answer]

    def _ask(self, tasks: Sequence[dict[str, Any]], stop: Callable[[], bool]) -> list[list[Candidate]]:
        """Answers in the order of `tasks`; each worker takes the next task as it is free."""
        with ThreadPoolExecutor(self.jobs) as threads:
            asked = [threads.submit(self._ask_one, task) for task in tasks]
            while wait(asked, timeout=STOP_EVERY_S).not_done:
                if stop():
                    self._end()
            return [answer.result() for answer in asked]

    def _ask_one(self, task: dict[str, Any]) -> list[Candidate]:
        worker = self._free.get()
        line = ""
        with contextlib.suppress(BrokenPipeError):
            _send(worker, json.dumps(task))
            assert worker.stdout is not None
            line = worker.stdout.readline()
        self._free.put(worker)
        if line.endswith("\n"):
            return [decode(data) for data in json.loads(line)]
        if self._ended:
            return []
        raise HelixKitError("a simulation worker ended before it answered; its message is above")

    def _end(self) -> None:
        self._ended = True
        for worker in self._workers:
            worker.kill()


def encode(candidate: Candidate) -> dict[str, Any]:
    """A candidate as JSON data."""
    return {
        "placement": candidate.placement,
        "tokens_per_s": candidate.flow.tokens_per_s,
        "edges": [[a, b, f] for (a, b), f in candidate.flow.edges.items()],
        "predicted": candidate.predicted,
        "served": candidate.served,
        "ease": candidate.ease,
    }


def decode(data: dict[str, Any]) -> Candidate:
    """The candidate that `encode` wrote; its flow has no capacities or cut."""
    flow = Flow(data["tokens_per_s"], {(a, b): f for a, b, f in data["edges"]}, {}, ())
    return Candidate(layout_of(data["placement"]), flow, data["predicted"], data["served"], ease=data["ease"])


def layout_of(data: Mapping[str, Sequence[int]]) -> Layout:
    """Node -> layer range, of which JSON makes lists."""
    return {node: (start, end) for node, (start, end) in data.items()}


def _send(worker: subprocess.Popen[str], line: str) -> None:
    assert worker.stdin is not None
    worker.stdin.write(line + "\n")
    worker.stdin.flush()


def _empty_plan(problem: Problem) -> Plan:
    """Any plan of the problem: it carries cluster, model and profiles."""
    node = next(n.name for n in problem.cluster.nodes if problem.max_layers(n.name) > 0)
    return Plan.from_placement(
        problem, {node: (0, 1)}, method="none", flow=Flow(0.0, {}, {}, ()), bound_tokens_per_s=0.0
    ).model_copy(update={"gap": 0.0})
