"""Gurobi, through its Python API, where gurobipy is installed and licensed. It reads the same LP file."""

from __future__ import annotations

from typing import Any

from helix_kit.errors import InputError
from helix_kit.placement.solvers.job import Job, Solution


def _environment() -> Any:
    """A Gurobi environment, or InputError when there is none."""
    try:
        import gurobipy

        environment = gurobipy.Env(empty=True)
        environment.setParam("OutputFlag", 0)
        environment.start()
    except ImportError:
        raise InputError(
            "Gurobi's Python package is not installed: expected `pip install gurobipy` and a licence, "
            "or solver 'highs' or 'glpk'",
            field="solver",
            value="gurobi",
        ) from None
    except gurobipy.GurobiError as error:
        raise InputError(f"Gurobi cannot be used: {error}", field="solver", value="gurobi") from None
    return environment


def check() -> None:
    """Raise InputError when Gurobi is not installed or has no licence."""
    _environment().dispose()


def solve_file(job: Job) -> Solution:
    """Solve the LP or MIP in `job.path`; see `helix_kit.placement.solvers.solve_model`."""
    import gurobipy
    from gurobipy import GRB

    stop = job.settings.stop
    with _environment() as environment, gurobipy.read(str(job.path), env=environment) as model:
        model.setParam("TimeLimit", job.time_limit_s)
        model.setParam("MIPGap", job.settings.mip_gap)
        model.setParam("Seed", job.settings.seed)
        if job.log_path is not None:
            model.setParam("LogFile", str(job.log_path))
        for variable in model.getVars():
            if variable.VarName in job.start:
                variable.Start = job.start[variable.VarName]

        def callback(model: Any, where: int) -> None:
            if stop is not None and stop():
                model.terminate()
            if where == GRB.Callback.MIP and job.progress is not None:
                best = model.cbGet(GRB.Callback.MIP_OBJBST)
                bound = model.cbGet(GRB.Callback.MIP_OBJBND)
                job.progress(best if abs(best) < GRB.INFINITY else None, bound if abs(bound) < GRB.INFINITY else None)

        model.optimize(callback)
        found = model.SolCount > 0
        values = {v.VarName: v.X for v in model.getVars()} if found else {}
        bound = model.ObjBound if model.IsMIP else (model.ObjVal if model.Status == GRB.OPTIMAL else None)
        infeasible = model.Status in (GRB.INFEASIBLE, GRB.INF_OR_UNBD)
        return Solution(model.ObjVal if found else None, bound, values, infeasible)
