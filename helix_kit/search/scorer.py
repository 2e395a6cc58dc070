"""Simulate many candidates: a few worker processes, spoken to in JSON lines.

Workers are started as ``python -m helix_kit.search.worker``, so that planning works from a script, a notebook or a
thread alike, and nothing is unpickled.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from helix_kit.errors import HelixKitError
from helix_kit.flow import Flow
from helix_kit.placement.plan import Plan
from helix_kit.placement.problem import Problem
from helix_kit.search.moves import Layout

Candidate = tuple[Layout, Flow]


@dataclass(frozen=True)
class Setting:
    """What a candidate is simulated under."""

    mode: str = "offline"
    execution: str = "layerwise"
    rate: float | None = None
    """Requests/s of online mode."""
    duration: float = 120.0
    warmup: float = 60.0
    seed: int = 0


def score_one(problem: Problem, candidate: Candidate, setting: Setting) -> dict[str, float]:
    """Simulate one candidate here: decode_tokens_per_s, prompt_latency_s, decode_latency_s (means)."""
    from helix_kit.simulator import score
    from helix_kit.workload import Workload

    workload = None
    if setting.mode == "online":
        until = setting.warmup + setting.duration
        workload = Workload.azure_conversation(rate=setting.rate or 1.0, duration=until, seed=setting.seed)
    return score(
        (problem, *candidate),
        workload,
        mode=setting.mode,  # type: ignore[arg-type]
        execution=setting.execution,  # type: ignore[arg-type]
        duration=setting.duration,
        warmup=setting.warmup,
        seed=setting.seed,
    )


class Scorer:
    """Worker processes for one problem; use as a context manager."""

    def __init__(self, problem: Problem, jobs: int) -> None:
        self.problem, self.jobs = problem, jobs
        self._workers: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Scorer:
        """Start the workers; with one job there are none, and work is done here."""
        if self.jobs > 1:
            header = json.dumps(_empty_plan(self.problem).model_dump(mode="json"))
            for _ in range(self.jobs):
                worker = subprocess.Popen(
                    [sys.executable, "-m", "helix_kit.search.worker"],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                )  # fmt: skip
                self._workers.append(worker)
                self._send(worker, header)
        return self

    def __exit__(self, *_: object) -> None:
        """End the workers."""
        for worker in self._workers:
            worker.kill()
            worker.wait()
            for stream in (worker.stdin, worker.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()

    def __call__(self, tasks: Sequence[tuple[Candidate, Setting]]) -> list[dict[str, float]]:
        """Results in the order of `tasks`, the workers side by side."""
        if not self._workers:
            return [score_one(self.problem, candidate, setting) for candidate, setting in tasks]
        results: list[dict[str, float]] = []
        for start in range(0, len(tasks), self.jobs):
            batch = list(zip(self._workers, tasks[start : start + self.jobs], strict=False))
            for worker, (candidate, setting) in batch:
                self._send(worker, _encode(candidate, setting))
            results += [self._receive(worker) for worker, _ in batch]
        return results

    @staticmethod
    def _send(worker: subprocess.Popen[str], line: str) -> None:
        assert worker.stdin is not None
        worker.stdin.write(line + "\n")
        worker.stdin.flush()

    @staticmethod
    def _receive(worker: subprocess.Popen[str]) -> dict[str, float]:
        assert worker.stdout is not None
        line = worker.stdout.readline()
        if not line:
            raise HelixKitError("a simulation worker ended before it answered; its message is above")
        return dict(json.loads(line))


def _empty_plan(problem: Problem) -> Plan:
    """Any plan of the problem: it carries cluster, model and profiles."""
    node = next(n.name for n in problem.cluster.nodes if problem.max_layers(n.name) > 0)
    return Plan.from_placement(
        problem, {node: (0, 1)}, method="none", flow=Flow(0.0, {}, {}, ()), bound_tokens_per_s=0.0
    ).model_copy(update={"gap": 0.0})


def _encode(candidate: Candidate, setting: Setting) -> str:
    placement, flow = candidate
    edges = [[a, b, f] for (a, b), f in flow.edges.items()]
    task = {"placement": placement, "value": flow.tokens_per_s, "edges": edges, "setting": asdict(setting)}
    return json.dumps(task)
