"""One run of a method: simulated, or served by workers that are started for it and stopped afterwards.

A run in which a worker is lost counts for nothing: it is ended at once, and the method is measured again with new
workers. A paced run (emulated machines, or the CPU-* kinds) in which too many steps came late says nothing of the
machines that it stands for: it is repeated with twice the time scale, at which later runs begin.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helix_kit._wording import count_text
from helix_kit.errors import HelixKitError
from helix_kit.experiments.evaluate.load import Load
from helix_kit.experiments.evaluate.methods import Method
from helix_kit.experiments.evaluate.options import SIMULATED, EvaluationOptions
from helix_kit.experiments.figures.common.metrics import metrics_of
from helix_kit.metrics import SLO
from helix_kit.placement.plan import Plan
from helix_kit.runtime import serve
from helix_kit.runtime.emulation import emulate
from helix_kit.runtime.errors import EngineError
from helix_kit.runtime.handle import RequestFailedError
from helix_kit.runtime.replay import MAX_OVERRUN_SHARE, OverrunError
from helix_kit.scheduling.policies import fresh_policy
from helix_kit.simulator import BatchingOptions, whole_run

if TYPE_CHECKING:
    from helix_kit.experiments.evaluate.keeping import Record
    from helix_kit.report import Run
    from helix_kit.runtime.engine import Engine
    from helix_kit.runtime.status import EngineStatus

MAX_ATTEMPTS = 3
"""Attempts at a run, of which each but the last ended because a worker was lost."""
MAX_TIME_SCALES = {"emulated": 64.0, "real": 8.0}
MAX_LATE_SHARES = {"emulated": MAX_OVERRUN_SHARE, "real": 0.1}
"""Largest share of late steps in a run that counts, by kind of workers.

Real layers take a part of each step, so that more of them end a little late."""
HOPELESS_STEPS, HOPELESS_FACTOR = 2000, 3.0
"""After this many steps, a run with this many times the allowed share of late steps is ended early."""
CHECK_EVERY_S = 1.0
"""How often a served run looks whether a worker was lost."""


Watch = Callable[[str, "EngineStatus"], None]
"""Called with the name of a run and the status of its workers."""


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


class JobRunner:
    """Runs jobs, and remembers the time scale at which this machine kept up.

    Parameters
    ----------
    options
        Of the evaluation.
    weights
        Folder for real workers.
    watch
        Called about once a second while workers serve, with the job's name and their status.
    """

    def __init__(self, options: EvaluationOptions, weights: Path | None, watch: Watch | None = None) -> None:
        self.options, self.weights, self.watch = options, weights, watch
        self.time_scale = options.first_time_scale

    def run(self, job: Job, say: Callable[[str], None]) -> tuple[Record, Run]:
        """The record of the run and the run itself; `say` is told how far it is.

        Raises HelixKitError where it cannot be measured, and KeyboardInterrupt when the user stops it.
        """
        began_s = time.monotonic()
        more: dict[str, Any]
        if job.source == SIMULATED:
            say("simulating")
            run, more = _simulated(job, self.options), {}
        else:
            run, more = self._served(job, say)
        return _record(job, run, began_s, self.options.slo, **more), run

    def _served(self, job: Job, say: Callable[[str], None]) -> tuple[Run, dict[str, Any]]:
        options = self.options
        lost: list[str] = []
        refused: list[str] = []
        while True:
            scale = self.time_scale
            try:
                say(f"starting {count_text(len(job.plan.placement), 'worker')}")
                with start_workers(job, options, self.weights, scale) as engine:
                    run = self._replayed(engine, job, say)
                _check_late(run.facts["overruns"], run.facts["steps"], scale, MAX_LATE_SHARES[options.workers])
                break
            except (WorkerLostError, RequestFailedError) as error:
                lost.append(str(error))
                if len(lost) == MAX_ATTEMPTS:
                    told = "; ".join(lost)
                    raise EngineError(f"a worker was lost in each of {MAX_ATTEMPTS} attempts: {told}") from error
            except OverrunError as error:
                refused.append(f"refused at time scale {scale:g}: {error}")
                if scale * 2 > MAX_TIME_SCALES[options.workers]:
                    raise
                self.time_scale = scale * 2
        notes = [f"measured again, a worker was lost: {reason}" for reason in lost] + refused
        metrics = {
            "late_steps_share": run.facts["overrun_share"],
            "steps": run.facts["steps"],
            "time_scale": scale,
            "lost_workers": len(lost),
            "attempts": 1 + len(lost) + len(refused),
        }
        if "ran_dry_s" in run.facts:
            notes.append(f"the backlog ran dry at {run.facts['ran_dry_s']:.0f} s")
        return run, {"metrics": metrics, "notes": notes}

    def _replayed(self, engine: Engine, job: Job, say: Callable[[str], None]) -> Run:
        """The run on workers that are up; WorkerLostError as soon as one is lost."""
        began_s = time.monotonic()
        until_s = job.load.window[1] * engine.time_scale
        checked_s = began_s
        before = engine.status(fresh=True)

        def report(*_: int) -> None:
            nonlocal checked_s
            now_s = time.monotonic()
            if now_s - checked_s < CHECK_EVERY_S:
                return
            checked_s = now_s
            _check_workers(engine)
            status = engine.status()
            steps, late = status.steps - before.steps, status.overruns - before.overruns
            if steps >= HOPELESS_STEPS:
                _check_late(late, steps, engine.time_scale, HOPELESS_FACTOR * MAX_LATE_SHARES[self.options.workers])
            say(f"{min(now_s - began_s, until_s):.0f} of {until_s:.0f} s")
            if self.watch is not None:
                self.watch(job.name, status)

        run = engine.replay(
            job.load.requests, mode=_mode(job), window=job.load.window, max_in_flight=job.load.max_in_flight,
            progress=report,
        )  # fmt: skip
        _check_workers(engine)
        return run


def _record(job: Job, run: Run, began_s: float, slo: SLO | None, **more: Any) -> Record:
    return {
        "method": job.method.name,
        "label": job.method.label,
        "mode": job.mode,
        "source": job.source,
        "metrics": {**metrics_of(run), **_counts(run), **_kept(run, slo), **more.pop("metrics", {})},
        "window_s": list(run.window),
        "notes": [*run.notes, *more.pop("notes", [])],
        "seconds": round(time.monotonic() - began_s, 2),
        "facts": run.facts,
        **more,
    }


def _counts(run: Run) -> dict[str, float]:
    summary = run.summary()
    return {
        "output_tokens_per_s": summary["output_tokens_per_s"],
        "requests": summary["requests"],
        "finished": summary["finished"],
        "peak_concurrency": summary["peak_concurrency"],
    }


def _kept(run: Run, slo: SLO | None) -> dict[str, float]:
    """Goodput where there is an SLO, and attainment where a request is decided."""
    if slo is None:
        return {}
    good = run.goodput(slo)
    share = {} if good.attainment is None else {"attainment": good.attainment}
    return {"goodput_per_s": good.requests_per_s, **share}


def _simulated(job: Job, options: EvaluationOptions) -> Run:
    start_s, end_s = job.load.window
    return whole_run(
        job.plan, job.load.requests, mode=_mode(job), policy=fresh_policy(job.method.policy), warmup_s=start_s,
        duration_s=end_s - start_s, seed=options.seed, options=BatchingOptions(max_in_flight=job.load.max_in_flight),
    )  # fmt: skip


def _mode(job: Job) -> Any:
    return job.mode


def start_workers(job: Job, options: EvaluationOptions, weights: Path | None, scale: float) -> Engine:
    """The workers of the job's plan, as its options say."""
    more = {"policy": fresh_policy(job.method.policy), "seed": options.seed, "time_scale": scale, **options.serve}
    if options.workers == "emulated":
        return emulate(job.plan, **{"threads": 1, **more})
    return serve(job.plan, weights, **more)


def _check_workers(engine: Engine) -> None:
    losses = engine.status().losses
    if losses:
        raise WorkerLostError("; ".join(f"{loss.worker} ({loss.reason})" for loss in losses))


def _check_late(late: int, steps: int, time_scale: float, max_share: float) -> None:
    """Raise OverrunError where a share of more than `max_share` of the steps was late."""
    if late > max_share * steps:
        raise OverrunError(
            f"{late / steps:.1%} of {steps} steps took longer than their profile (at most {max_share:.0%} may): "
            f"this machine is too slow or too busy for time scale {time_scale:g}"
        )
