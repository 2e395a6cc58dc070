"""HiGHS, through its Python API: it reads the LP file, reports incumbents and bounds, and can be stopped."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from helix_kit.placement.solvers.job import Job, MipProgress, Solution


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
    if is_mip:
        _subscribe(highs, settings.stop, job.progress)
    highs.run()
    info, status = highs.getInfo(), highs.getModelStatus()
    infeasible = status in (highspy.HighsModelStatus.kInfeasible, highspy.HighsModelStatus.kUnboundedOrInfeasible)
    # The status is not used here: after an interrupt it is not "optimal", but the incumbent is still valid.
    found = info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible
    values = dict(zip(lp.col_names_, highs.getSolution().col_value)) if found else {}
    value = info.objective_function_value if found else None
    bound = info.mip_dual_bound if is_mip else (value if status == highspy.HighsModelStatus.kOptimal else None)
    return Solution(value, bound if bound is not None and math.isfinite(bound) else None, values, infeasible)


def _subscribe(highs: Any, stop: Callable[[], bool] | None, progress: MipProgress | None) -> None:
    if progress is not None:
        last: list[tuple[float | None, float | None]] = [(None, None)]

        def report(event: Any) -> None:
            primal, dual = event.data_out.mip_primal_bound, event.data_out.mip_dual_bound
            seen = (primal if abs(primal) < 1e29 else None, dual if abs(dual) < 1e29 else None)
            if seen != last[0]:
                last[0] = seen
                progress(*seen)

        highs.cbMipImprovingSolution.subscribe(report)
        highs.cbMipLogging.subscribe(report)
    if stop is not None:

        def interrupt(event: Any) -> None:
            if stop():
                event.data_in.user_interrupt = True

        highs.cbMipInterrupt.subscribe(interrupt)
