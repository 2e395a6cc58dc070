"""The published evaluation on one cluster (paper, section 6.3), served by worker processes with stand-in layers.

Every method has its published placement, flow, scheduler and load; a method that splits the cluster is served by
separate sets of workers at the same time. Each run is measured over a window after a warm-up and simulated over the
same window by our runtime's rules. A finished run is a JSON file in a folder and is not measured again.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from helix_kit import __version__, _files
from helix_kit.errors import HelixKitError, InputError
from helix_kit.experiments.evaluate.intervals import Samples, differences
from helix_kit.experiments.evaluate.keeping import write_json
from helix_kit.experiments.evaluate.load import Load
from helix_kit.experiments.evaluate.methods import Method
from helix_kit.experiments.evaluate.options import SIMULATED, SOURCES, EvaluationOptions
from helix_kit.experiments.evaluate.serving import Job, JobRunner
from helix_kit.experiments.figures.common.metrics import metrics_of
from helix_kit.experiments.figures.common.published import PublishedRun, published_runs
from helix_kit.report import Run, merge
from helix_kit.workload.workload import Workload

SECTION, SETUP = "6.3", "single"
WARMUPS_S = {"llama2-70b": 240.0, "llama-30b": 150.0}
"""Before a window begins; a mean stay is 212 s at most for 70B, and 128 s for 30B."""
WINDOW_S = 300.0
STEP_CPU_S, TOKEN_CPU_S = 1.2e-3, 0.5e-3
"""CPU time of a worker for a paced step with its messages, and of the coordinator for a token."""
CORES_SHARE = 0.25
"""Share of this machine's cores that a run may take, so that few steps come late."""
SHORTEST_SCALE = 0.5
Say = Callable[[str], None]


@dataclass(frozen=True)
class PublishedCase:
    """A published run as jobs: one for each separate part of the cluster."""

    run: PublishedRun
    jobs: tuple[Job, ...]

    @property
    def name(self) -> str:
        """What its file is called."""
        return f"{self.run.model}-{self.run.method}-{self.run.mode}"

    def settings(self, seed: int) -> dict[str, Any]:
        """What must be the same for a kept measurement to count."""
        digest = hashlib.sha256()
        for job in self.jobs:
            digest.update(job.plan.model_dump_json(include={"placement", "flow", "profiles"}).encode())
            digest.update(repr((job.load.requests.requests, job.load.window, job.load.max_in_flight)).encode())
        return {"digest": digest.hexdigest()[:16], "seed": seed, "helix_kit": __version__}


def cases(models: Iterable[str], methods: Iterable[str], modes: Iterable[str]) -> list[PublishedCase]:
    """The published runs of one cluster with these models, methods and modes, in their order."""
    known = {(r.model, r.mode, r.method): r for r in published_runs() if (r.section, r.setup) == (SECTION, SETUP)}
    found = []
    for key in itertools.product(models, modes, methods):
        if key not in known:
            said = f"expected a model, mode and method of section {SECTION}, such as {' '.join(next(iter(known)))}"
            raise InputError(said, field="run", value=" ".join(key))
        found.append(case_of(known[key]))
    return found


def case_of(run: PublishedRun, *, warmup_s: float | None = None, window_s: float = WINDOW_S) -> PublishedCase:
    """A published run over a window of `window_s` after `warmup_s` (None: that of its model)."""
    start_s = WARMUPS_S[run.model] if warmup_s is None else warmup_s
    window = (start_s, start_s + window_s)
    jobs = []
    for part, plan in zip(run.subclusters, run.plans(), strict=True):
        requests, in_flight = part.requests(), None
        if run.mode == "online":
            requests = Workload(tuple(r for r in requests if r.arrival_s < window[1]), requests.source)
        elif part.policy != "helix":
            in_flight = part.in_flight
        method = Method(run.method, f"{run.method} {part.name}".strip(), plan, part.policy)
        jobs.append(Job(method, plan, run.mode, Load(requests, window, in_flight), SIMULATED))
    return PublishedCase(run, tuple(jobs))


def time_scale_for(steps_per_s: float, tokens_per_s: float, cores: int) -> float:
    """The time scale, in quarters, at which this machine carries so many emulated steps/s and tokens/s.

    >>> time_scale_for(180, 180, cores=2), time_scale_for(1170, 200, cores=2)
    (0.75, 3.25)
    """
    wanted = (steps_per_s * STEP_CPU_S + tokens_per_s * TOKEN_CPU_S) / (CORES_SHARE * cores)
    return max(SHORTEST_SCALE, -(-wanted // 0.25) * 0.25)


def measure(
    case: PublishedCase,
    folder: Path,
    say: Say,
    *,
    seed: int = 0,
    time_scale: float | None = None,
    launcher: str = "process",
) -> bool:
    """Simulate and serve a case and keep its measurement in `folder`; False if it is there already.

    Raises HelixKitError where it cannot be measured, and KeyboardInterrupt when the user stops it.
    """
    file = folder / f"{case.name}.json"
    settings = case.settings(seed)
    if file.is_file() and _files.read_json(file).get("settings") == settings:
        return False
    say("simulating")
    simple = EvaluationOptions(workers="emulated", seed=seed, serve={"launcher": launcher})
    simulated = merge([JobRunner(simple, None).run(job, say)[1] for job in case.jobs])
    end_s = simulated.window[1]
    steps_per_s = sum(use.steps for use in simulated.nodes.values()) / simulated.window_s
    tokens_per_s = simulated.summary()["output_tokens_per_s"]
    scale = time_scale or time_scale_for(steps_per_s, tokens_per_s, os.cpu_count() or 1)
    began_s = time.monotonic()
    options = replace(simple, time_scale=scale)
    records, runs = _served_together(case, options, say)
    served = merge(runs)
    metrics = [record["metrics"] for record in records]
    steps = sum(one["steps"] for one in metrics)
    kept = {
        "settings": settings,
        **{field: getattr(case.run, field) for field in ("section", "setup", "model", "method", "mode")},
        "window_s": list(simulated.window),
        "simulated": metrics_of(simulated),
        "served": metrics_of(served),
        "differences": [d._asdict() for d in differences(Samples.of(simulated), Samples.of(served), seed=seed)],
        "workers": sum(len(job.plan.placement) for job in case.jobs),
        "requests": len(served.records),
        "finished": served.summary()["finished"],
        "finished_simulated": simulated.summary()["finished"],
        "pipelines": len({record.pipeline for record in served.records if record.pipeline}),
        "time_scale": max(one["time_scale"] for one in metrics),
        "steps": steps,
        "late_steps_share": sum(one["late_steps_share"] * one["steps"] for one in metrics) / steps,
        "cpu_ms_per_step": sum(r["facts"]["worker_cpu_ms_per_step"] * r["metrics"]["steps"] for r in records) / steps,
        "lost_workers": sum(one["lost_workers"] for one in metrics),
        "emulated_s": end_s,
        "seconds": round(time.monotonic() - began_s, 1),
        "cores": os.cpu_count(),
        "notes": [note for record in records for note in record["notes"]],
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_json(file, kept)
    return True


def _served_together(case: PublishedCase, options: EvaluationOptions, say: Say) -> tuple[list[Any], list[Run]]:
    """Records and runs of the parts of a cluster, which are served at the same time.

    When one fails, or the user stops it, the others end at their next report. The first failure is raised.
    """
    stop = threading.Event()
    failed: list[BaseException] = []

    def serve(job: Job) -> tuple[Any, Run]:
        def tell(text: str) -> None:
            if stop.is_set():
                raise HelixKitError("another part of the cluster has failed")
            say(text if len(case.jobs) == 1 else f"{job.method.label}: {text}")

        try:
            return JobRunner(options, None).run(replace(job, source=str(SOURCES["emulated"])), tell)
        except BaseException as error:
            failed.append(error)
            stop.set()
            raise

    with ThreadPoolExecutor(len(case.jobs)) as pool:
        futures = [pool.submit(serve, job) for job in case.jobs]
        try:
            wait(futures)
        except BaseException:
            stop.set()
            raise
    if failed:
        raise failed[0]
    done = [future.result() for future in futures]
    return [record for record, _ in done], [run for _, run in done]
