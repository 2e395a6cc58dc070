"""Solve a Pyomo model with HiGHS, GLPK or Gurobi: one LP file, written by Pyomo, read by whichever solver.

Pyomo's own interfaces lose what we need: GLPK's bound, its incumbent when stopped, and a way to stop; HiGHS's
progress. So Pyomo writes the model and takes the values back, and the solver is driven here.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from helix_kit.errors import InputError

SOLVERS = ("highs", "glpk", "gurobi")
MipProgress = Callable[[float | None, float | None], None]
"""Called with (incumbent or None, bound or None) as the solver goes."""


@dataclass(frozen=True)
class Solution:
    """What a solver returned: `value` is None when it found no feasible point, `bound` None when it proved none."""

    value: float | None
    bound: float | None
    values: dict[str, float]
    """LP name of a variable -> value, empty without an incumbent."""
    infeasible: bool = False
    """Proven to have no solution."""

    @property
    def optimal(self) -> bool:
        """Whether the incumbent is proven to be within 1e-6 of the best."""
        return (
            self.value is not None
            and self.bound is not None
            and abs(self.bound - self.value) <= 1e-6 * max(1.0, abs(self.value))
        )


@dataclass(frozen=True)
class Job:
    """What a backend is given: the LP file and the settings of `solve`."""

    path: Path
    time_limit: float
    """Seconds."""
    mip_gap: float
    """Relative gap at which to end."""
    seed: int
    start: Mapping[str, float]
    """LP name of a variable -> value of a first incumbent; empty: none."""
    stop: Callable[[], bool] | None
    progress: MipProgress | None
    log_path: str | Path | None


def check_solver(solver: str) -> None:
    """Raise InputError when `solver` is unknown, or not installed."""
    _backend(solver).check()


def _backend(solver: str) -> ModuleType:
    """The module that drives `solver`: each has `check()` and `solve_file(job)`."""
    if solver not in SOLVERS:
        raise InputError(f"expected one of {', '.join(SOLVERS)}", field="solver", value=solver)
    return import_module(f"helix_kit.placement.solvers.{solver}")


def solve(
    model: Any,
    solver: str = "highs",
    *,
    time_limit: float = 60.0,
    mip_gap: float = 0.0,
    seed: int = 0,
    warm_start: bool = False,
    stop: Callable[[], bool] | None = None,
    progress: MipProgress | None = None,
    log_path: str | Path | None = None,
) -> Solution:
    """Solve a Pyomo model and load the incumbent, if there is one, into its variables.

    `mip_gap` is relative. With `warm_start` the variables' present values are offered as a first incumbent
    (HiGHS and Gurobi; GLPK cannot). `stop` is polled; the incumbent at that time is kept.
    """
    names = _Labels(model)
    with tempfile.TemporaryDirectory(prefix="helix-kit-") as folder:
        path = Path(folder) / "model.lp"
        path.write_text(names.lp)
        start = names.present_values() if warm_start else {}
        job = Job(path, max(time_limit, 0.01), mip_gap, seed, start, stop, progress, log_path)
        solution: Solution = _backend(solver).solve_file(job)
    names.load(solution.values)
    return solution


def write_lp(model: Any, path: str | Path) -> None:
    """Write the model as an LP file with readable names."""
    Path(path).write_text(_Labels(model, readable=True).lp)


class _Labels:
    """The LP text of a model, and the way back from its short names to the variables."""

    def __init__(self, model: Any, readable: bool = False) -> None:
        from pyomo.repn.plugins.lp_writer import LPWriter

        text = io.StringIO()
        # Order as declared, so that the same model gives the same bytes, and the solver the same path.
        info = LPWriter().write(model, text, symbolic_solver_labels=readable, file_determinism=10)
        self.lp = text.getvalue()
        self._variables = info.symbol_map.bySymbol

    def present_values(self) -> dict[str, float]:
        return {
            name: float(var.value)
            for name, var in self._variables.items()
            if getattr(var, "value", None) is not None and var.is_variable_type()
        }

    def load(self, values: dict[str, float]) -> None:
        for name, value in values.items():
            var = self._variables.get(name)
            if var is not None and var.is_variable_type():
                # Solvers return 0.9999999 for 1; what a binary or integer means is the nearest whole number.
                var.set_value(round(value) if var.is_integer() or var.is_binary() else value, skip_validation=True)


def environment() -> dict[str, str]:
    """Environment for solver programs: plain C locale, so that logs and numbers are parsed as written."""
    return {**os.environ, "LC_ALL": "C"}
