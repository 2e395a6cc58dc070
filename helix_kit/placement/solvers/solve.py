"""Solve a Pyomo model with HiGHS, GLPK or Gurobi: Pyomo writes one LP file, and each solver reads that file.

Pyomo's own solver interfaces are not used because they lose information: for GLPK the bound, the incumbent at an early
end and a way to stop, and for HiGHS the progress. So Pyomo writes the model and takes the values back, and the solver
is driven by a module of this package.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any, Protocol

from helix_kit.errors import InputError
from helix_kit.placement.solvers import glpk, gurobi, highs
from helix_kit.placement.solvers.job import Job, MipProgress, Solution, SolverSettings


class Driver(Protocol):
    """A module that drives one solver."""

    def check(self) -> None:
        """Raise InputError when the solver is not installed."""

    def solve_file(self, job: Job) -> Solution:
        """Solve the LP or MIP in `job.path`."""


DRIVERS: dict[str, Driver] = {"highs": highs, "glpk": glpk, "gurobi": gurobi}
SOLVERS = tuple(DRIVERS)


def check_solver(solver: str) -> None:
    """Check that a solver is known and installed.

    Parameters
    ----------
    solver
        Name of the solver.

    Raises
    ------
    InputError
        When the name is unknown, or the solver is not installed or has no licence.

    Examples
    --------
    >>> check_solver("highs")
    >>> check_solver("cplex")
    Traceback (most recent call last):
    ...
    helix_kit.errors.InputError: solver = 'cplex': expected one of highs, glpk, gurobi
    """
    _driver(solver).check()


def _driver(solver: str) -> Driver:
    if solver not in DRIVERS:
        raise InputError(f"expected one of {', '.join(SOLVERS)}", field="solver", value=solver)
    return DRIVERS[solver]


def solve_model(
    model: Any,
    settings: SolverSettings,
    *,
    warm_start: bool = False,
    progress: MipProgress | None = None,
    log_path: str | Path | None = None,
) -> Solution:
    """Solve a Pyomo model and load the incumbent, if there is one, into its variables.

    Parameters
    ----------
    model
        A `pyomo.environ.ConcreteModel`, linear or mixed-integer linear.
    settings
        Solver, time limit in seconds, relative gap, seed and stop.
    warm_start
        Offer the variables' present values as a first incumbent. HiGHS and Gurobi take it, GLPK cannot.
    progress
        Called with (incumbent or None, bound or None) while the solver runs.
    log_path
        File for the solver's log.

    Returns
    -------
    Solution
        Incumbent, bound and values. The incumbent of an early end (time limit or stop) is kept.

    Raises
    ------
    InputError
        When the solver is unknown or not installed.

    Examples
    --------
    >>> import pyomo.environ as pyo
    >>> model = pyo.ConcreteModel()
    >>> model.x = pyo.Var(domain=pyo.NonNegativeIntegers)
    >>> model.limit = pyo.Constraint(expr=2 * model.x <= 7)
    >>> model.value = pyo.Objective(expr=5 * model.x, sense=pyo.maximize)
    >>> solve_model(model, SolverSettings()).value, model.x.value
    (15.0, 3)
    """
    names = _Labels(model)
    with tempfile.TemporaryDirectory(prefix="helix-kit-") as folder:
        path = Path(folder) / "model.lp"
        path.write_text(names.lp)
        start = names.present_values() if warm_start else {}
        solution = _driver(settings.solver).solve_file(Job(path, settings, start, progress, log_path))
    names.load(solution.values)
    return solution


def write_lp(model: Any, path: str | Path) -> None:
    """Write a Pyomo model as an LP file with readable names.

    Parameters
    ----------
    model
        A `pyomo.environ.ConcreteModel`.
    path
        The file to write.

    Raises
    ------
    OSError
        When the file cannot be written.

    Examples
    --------
    >>> import pyomo.environ as pyo
    >>> model = pyo.ConcreteModel("two")
    >>> model.x = pyo.Var(bounds=(0, 2))
    >>> model.value = pyo.Objective(expr=3 * model.x, sense=pyo.maximize)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_lp(model, Path(folder) / "two.lp")
    ...     "+3 x" in (Path(folder) / "two.lp").read_text()
    True
    """
    Path(path).write_text(_Labels(model, readable=True).lp)


class _Labels:
    """The LP text of a model, and the variable that each of its names stands for."""

    def __init__(self, model: Any, readable: bool = False) -> None:
        from pyomo.repn.plugins.lp_writer import LPWriter

        text = io.StringIO()
        # Order as declared: the same model then gives the same bytes, and the solver takes the same search path.
        info = LPWriter().write(model, text, symbolic_solver_labels=readable, file_determinism=10)
        self.lp = text.getvalue()
        self._variables = info.symbol_map.bySymbol

    def present_values(self) -> dict[str, float]:
        """The variables' present values by name in the LP file."""
        return {
            name: float(var.value)
            for name, var in self._variables.items()
            if getattr(var, "value", None) is not None and var.is_variable_type()
        }

    def load(self, values: dict[str, float]) -> None:
        """Set the variables to the solver's values."""
        for name, value in values.items():
            var = self._variables.get(name)
            if var is not None and var.is_variable_type():
                # A solver may return 0.9999999 for 1, so the values of integers and binaries are rounded.
                var.set_value(round(value) if var.is_integer() or var.is_binary() else value, skip_validation=True)
