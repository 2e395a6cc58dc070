"""HiGHS, through its Python API: it reads the LP file, reports incumbents and bounds, and can be stopped.

It runs in a thread, since it looks for a stop only between steps, of which a large program has some that take seconds.
Where it does not end soon after a stop it is left behind with its incumbent, and ends at its next step.
"""

from __future__ import annotations

import atexit
import math
import threading
import time
from typing import Any

from helix_kit.placement.solvers.job import Job, Solution

POLL_S = 0.05
"""Seconds between two looks at the stop while HiGHS runs."""
GRACE_S = 0.3
"""Seconds that HiGHS has to end by itself after a stop."""


left_behind: list[threading.Event] = []
"""The ends of runs that nothing waits for any more, but the end of the program."""


def is_running() -> bool:
    """Whether a run that was left behind has not ended yet."""
    return not all(end.is_set() for end in left_behind)


@atexit.register
def _wait() -> None:
    """A thread that calls back while Python shuts down would abort the program."""
    for end in left_behind:
        end.wait()


def check() -> None:
    """Do nothing: HiGHS is a dependency of the package, so it is always installed."""


def solve_file(job: Job) -> Solution:
    """Solve the LP or MIP in `job.path`; see `helix_kit.placement.solvers.solve_model`."""
    import highspy

    settings = job.settings
    highs = highspy.Highs()
    highs.setOptionValue("output_flag", job.log_path is not None)
    if job.log_path is not None:
        highs.setOptionValue("log_to_console", False)
        highs.setOptionValue("log_file", str(job.log_path))
    highs.setOptionValue("time_limit", float(job.time_limit_s))
    highs.setOptionValue("mip_rel_gap", float(settings.mip_gap))
    highs.setOptionValue("random_seed", settings.seed)
    # With one thread the search path, and so the placement, is the same on every machine.
    highs.setOptionValue("threads", 1)
    highs.setOptionValue("parallel", "off")
    highs.readModel(str(job.path))
    lp = highs.getLp()
    is_mip = any(kind != highspy.HighsVarType.kContinuous for kind in lp.integrality_)
    if job.start and is_mip:
        solution = highspy.HighsSolution()
        solution.col_value = [job.start.get(name, 0.0) for name in lp.col_names_]
        highs.setSolution(solution)
    run = _Run(highs, job, is_mip)
    if not run.ended():
        return Solution(run.value, run.bound, dict(zip(lp.col_names_, run.values)), False)
    info, status = highs.getInfo(), highs.getModelStatus()
    infeasible = status in (highspy.HighsModelStatus.kInfeasible, highspy.HighsModelStatus.kUnboundedOrInfeasible)
    # The status is not used here: after an interrupt it is not "optimal", but the incumbent is still valid.
    found = info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible
    values = dict(zip(lp.col_names_, highs.getSolution().col_value)) if found else {}
    value = info.objective_function_value if found else None
    bound = info.mip_dual_bound if is_mip else (value if status == highspy.HighsModelStatus.kOptimal else None)
    return Solution(value, bound if bound is not None and math.isfinite(bound) else None, values, infeasible)


class _Run:
    """HiGHS in its thread, and what it has reported so far."""

    def __init__(self, highs: Any, job: Job, is_mip: bool) -> None:
        self._highs, self._job = highs, job
        self._is_left = False
        """Whether nothing waits for it any more."""
        self._end = threading.Event()
        self._error: BaseException | None = None
        self._reported: tuple[float | None, float | None] = (None, None)
        self.value: float | None = None
        self.values: list[float] = []
        """Of the incumbent, in the order of the columns."""
        if is_mip:
            highs.cbMipInterrupt.subscribe(self._interrupt)
            highs.cbMipImprovingSolution.subscribe(self._improve)
            highs.cbMipImprovingSolution.subscribe(self._report)
            highs.cbMipLogging.subscribe(self._report)
        elif not job.settings.polls_are_counted:
            highs.cbSimplexInterrupt.subscribe(self._interrupt)
            highs.cbIpmInterrupt.subscribe(self._interrupt)

    def ended(self) -> bool:
        """Run it; whether it ended by itself. Raises what a callback has raised."""
        threading.Thread(target=self._work, name="helix-kit-highs", daemon=True).start()
        stop = None if self._job.settings.polls_are_counted else self._job.settings.stop
        stopped_s = math.inf
        try:
            # Not `join`, after which a thread counts as ended where Ctrl-C comes meanwhile (Python 3.11).
            while not self._end.wait(POLL_S) and time.monotonic() < stopped_s + GRACE_S:
                if stop is not None and stopped_s == math.inf and stop():
                    stopped_s = time.monotonic()
        except BaseException:
            self._leave()
            raise
        if not self._end.is_set():
            self._leave()
            return False
        if self._error is not None:
            raise self._error
        return True

    def _work(self) -> None:
        try:
            self._highs.run()
        except BaseException as error:
            self._error = error
        finally:
            self._end.set()

    def _leave(self) -> None:
        self._is_left = True
        left_behind.append(self._end)

    def _interrupt(self, event: Any) -> None:
        stop = self._job.settings.stop
        if self._is_left or (stop is not None and stop()):
            event.data_in.user_interrupt = True

    def _improve(self, event: Any) -> None:
        self.value, self.values = event.data_out.objective_function_value, list(event.data_out.mip_solution)

    def _report(self, event: Any) -> None:
        primal, dual = event.data_out.mip_primal_bound, event.data_out.mip_dual_bound
        seen = (primal if abs(primal) < 1e29 else None, dual if abs(dual) < 1e29 else None)
        if seen != self._reported and not self._is_left:
            self._reported = seen
            if self._job.progress is not None:
                self._job.progress(*seen)

    @property
    def bound(self) -> float | None:
        """The last bound that it has reported."""
        return self._reported[1]
