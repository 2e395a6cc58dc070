"""One run of a method: simulated, or served by workers that are started for it and stopped afterwards.

A run in which a worker is lost counts for nothing: it is ended at once, and the method is measured again with new
workers. An emulated run in which too many steps came late is repeated with twice the time scale.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helix_kit.errors import HelixKitError
from helix_kit.experiments.evaluate.load import Load
from helix_kit.experiments.evaluate.methods import Method
from helix_kit.experiments.evaluate.options import SIMULATED, EvaluationOptions
from helix_kit.experiments.figures.common.metrics import metrics_of
from helix_kit.placement.plan import Plan
from helix_kit.runtime import serve
from helix_kit.runtime.emulation import emulate
from helix_kit.runtime.errors import EngineError
from helix_kit.runtime.handle import RequestFailedError
from helix_kit.runtime.replay import OverrunError
from helix_kit.scheduling import Policy, PolicyChoice
from helix_kit.simulator import BatchingOptions, simulate

if TYPE_CHECKING:
    from helix_kit.experiments.evaluate.keeping import Record
    from helix_kit.report import Run
    from helix_kit.runtime.engine import Engine

MAX_ATTEMPTS = 3
"""Attempts at a run, of which each but the last ended because a worker was lost."""
MAX_TIME_SCALE = 64.0
CHECK_EVERY_S = 1.0
"""How often a served run looks whether a worker was lost."""


class WorkerLostError(HelixKitError):
    """A worker was lost in the middle of a run."""


@dataclass(frozen=True)
class Job:
    """One run of an evaluation."""

    method: Method
    plan: Plan
    mode: str
    load: Load
    source: str
    """``simulated``, or what the workers are called."""

    @property
    def name(self) -> str:
        """What progress calls it."""
        return f"{self.method.label}, {self.mode}, {self.source}"


def run_job(
    job: Job, options: EvaluationOptions, weights: Path | None, say: Callable[[str], None]
) -> tuple[Record, Run]:
    """The record of the run and the run itself; `say` is told how far it is.

    Raises HelixKitError where it cannot be measured, and KeyboardInterrupt when the user stops it.
    """
    began_s = time.monotonic()
    more: dict[str, Any] = {}
    if job.source == SIMULATED:
        say("simulating")
        run = _simulated(job, options)
    else:
        run, more = _served(job, options, weights, say)
    record = {
        "method": job.method.name,
        "label": job.method.label,
        "mode": job.mode,
        "source": job.source,
        "metrics": {**metrics_of(run), **_counts(run), **more.pop("metrics", {})},
        "window_s": list(run.window),
        "notes": [*run.notes, *more.pop("notes", [])],
        "seconds": round(time.monotonic() - began_s, 2),
        "facts": run.facts,
        **more,
    }
    return record, run


def _counts(run: Run) -> dict[str, float]:
    summary = run.summary()
    return {
        "output_tokens_per_s": summary["output_tokens_per_s"],
        "requests": summary["requests"],
        "finished": summary["finished"],
        "peak_concurrency": summary["peak_concurrency"],
    }


def _simulated(job: Job, options: EvaluationOptions) -> Run:
    start_s, end_s = job.load.window
    run = simulate(
        job.plan, job.load.requests, mode=_mode(job), policy=_fresh(job.method.policy), warmup_s=start_s,
        duration_s=end_s - start_s, seed=options.seed, options=BatchingOptions(max_in_flight=job.load.max_in_flight),
    )  # fmt: skip
    if run.partial:
        raise KeyboardInterrupt
    return run


def _mode(job: Job) -> Any:
    return job.mode


def _fresh(policy: PolicyChoice) -> PolicyChoice:
    """A policy that has routed nothing: an object counts what it has routed."""
    return copy.deepcopy(policy) if isinstance(policy, Policy) else policy


def _served(
    job: Job, options: EvaluationOptions, weights: Path | None, say: Callable[[str], None]
) -> tuple[Run, dict[str, Any]]:
    scale = options.first_time_scale
    lost: list[str] = []
    refused: list[str] = []
    while True:
        try:
            say(f"starting {len(job.plan.placement)} workers")
            with start_workers(job, options, weights, scale) as engine:
                run = _replayed(engine, job, options, say)
            break
        except (WorkerLostError, RequestFailedError) as error:
            lost.append(str(error))
            if len(lost) == MAX_ATTEMPTS:
                raise EngineError(f"a worker was lost in each of {MAX_ATTEMPTS} attempts: {'; '.join(lost)}") from error
        except OverrunError as error:
            refused.append(f"refused at time scale {scale:g}: {error}")
            if scale * 2 > MAX_TIME_SCALE:
                raise
            scale *= 2
    notes = [f"measured again, a worker was lost: {reason}" for reason in lost] + refused
    share = run.facts["overrun_share"]
    metrics = {
        "late_steps_share": share,
        "steps": run.facts["steps"],
        "time_scale": scale,
        "lost_workers": len(lost),
        "attempts": 1 + len(lost) + len(refused),
    }
    if "ran_dry_s" in run.facts:
        notes.append(f"the backlog ran dry at {run.facts['ran_dry_s']:.0f} s")
    return run, {"metrics": metrics, "notes": notes}


def start_workers(job: Job, options: EvaluationOptions, weights: Path | None, scale: float) -> Engine:
    """The workers of the job's plan, as its options say."""
    more = {"policy": _fresh(job.method.policy), "seed": options.seed, "time_scale": scale, **options.serve}
    if options.workers == "emulated":
        return emulate(job.plan, **{"threads": 1, **more})
    return serve(job.plan, weights, **more)


def _replayed(engine: Engine, job: Job, options: EvaluationOptions, say: Callable[[str], None]) -> Run:
    """The run on workers that are up; WorkerLostError as soon as one is lost."""
    began_s = time.monotonic()
    until_s = job.load.window[1] * engine.time_scale
    checked_s = began_s

    def watch(*_: int) -> None:
        nonlocal checked_s
        now_s = time.monotonic()
        if now_s - checked_s < CHECK_EVERY_S:
            return
        checked_s = now_s
        _check_workers(engine)
        say(f"{min(now_s - began_s, until_s):.0f} of {until_s:.0f} s")

    run = engine.replay(
        job.load.requests, mode=_mode(job), window=job.load.window, max_in_flight=job.load.max_in_flight,
        progress=watch,
    )  # fmt: skip
    _check_workers(engine)
    return run


def _check_workers(engine: Engine) -> None:
    losses = engine.status().losses
    if losses:
        raise WorkerLostError("; ".join(f"{loss.worker} ({loss.reason})" for loss in losses))
