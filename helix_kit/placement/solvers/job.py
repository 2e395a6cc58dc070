"""What a solver's driver is given and what it returns, the same for HiGHS, GLPK and Gurobi."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

MipProgress = Callable[[float | None, float | None], None]
"""Called with (incumbent or None, bound or None) whenever the solver reports one of them."""


@dataclass(frozen=True)
class SolverSettings:
    """Which solver is used, and when it ends.

    Attributes
    ----------
    solver
        ``highs``, ``glpk`` or ``gurobi``.
    time_limit_s
        Seconds after which the solver returns its incumbent. At least 0.01 s are given.
    mip_gap
        Relative gap between incumbent and bound at which the solver ends.
    seed
        Seed of the solver's random choices.
    stop
        Polled while the solver runs. Once it returns True, the solver ends and its incumbent is kept.

    Examples
    --------
    >>> SolverSettings("glpk", time_limit_s=5.0).mip_gap
    0.0
    """

    solver: str = "highs"
    time_limit_s: float = 60.0
    mip_gap: float = 0.0
    seed: int = 0
    stop: Callable[[], bool] | None = None

    @property
    def polls_are_counted(self) -> bool:
        """Whether only the number of polls ends the solver, as where work is counted in place of seconds."""
        return math.isinf(self.time_limit_s)


@dataclass(frozen=True)
class Solution:
    """What a solver returned.

    Attributes
    ----------
    value
        Objective of the incumbent. None when the solver found no feasible point.
    bound
        Proven bound on the objective. None when the solver proved none.
    values
        Value of each variable by its name in the LP file. Empty without an incumbent.
    infeasible
        Whether the program is proven to have no solution.

    Examples
    --------
    >>> Solution(10.0, 10.000001, {}).optimal, Solution(10.0, 12.0, {}).optimal, Solution(None, 12.0, {}).optimal
    (True, False, False)
    """

    value: float | None
    bound: float | None
    values: dict[str, float]
    infeasible: bool = False

    @property
    def optimal(self) -> bool:
        """Whether the incumbent is proven to be within 1e-6 (relative) of the best."""
        return (
            self.value is not None
            and self.bound is not None
            and abs(self.bound - self.value) <= 1e-6 * max(1.0, abs(self.value))
        )


@dataclass(frozen=True)
class Job:
    """What a driver is given: the LP file and how to solve it."""

    path: Path
    settings: SolverSettings
    start: Mapping[str, float]
    """Value of each variable in a first incumbent, by its name in the LP file. Empty when there is none."""
    progress: MipProgress | None = None
    log_path: str | Path | None = None

    @property
    def time_limit_s(self) -> float:
        """Seconds that the solver may take. GLPK and Gurobi refuse 0, so at least 0.01."""
        return max(self.settings.time_limit_s, 0.01)


def environment() -> dict[str, str]:
    """Environment variables for solver programs, with the C locale so that logs and numbers can be parsed."""
    return {**os.environ, "LC_ALL": "C"}
