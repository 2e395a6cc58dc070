"""What a solver finds by itself on the paper's program, without a heuristic's start and without a fallback.

`helix_kit.plan(..., method="paper-milp")` returns the better of the solver's placement and a heuristic's. That is the
plan to deploy, but it hides how far the solver came. `solve_alone` shows how far.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from helix_kit.flow import Placement
from helix_kit.placement.bounds import least_bound, spread_bound
from helix_kit.placement.groups import groups_of
from helix_kit.placement.paper.program import build, read_placement
from helix_kit.placement.problem import Problem
from helix_kit.placement.solvers import SolverSettings, solve_model
from helix_kit.placement.watch import Progress

NO_FLOW = 1e-6
"""Objectives below this many tokens/s are rounding: the solver's placement carries nothing."""


@dataclass(frozen=True)
class SolverRun:
    """What a solver found by itself.

    Attributes
    ----------
    placement
        Node name -> layer range [start, end) of the solver's incumbent; empty if it found none that carries flow.
    flow_tokens_per_s
        The exact maximum flow of `placement`; 0 without one.
    bound_tokens_per_s
        The solver's own proven bound; infinite if it proved none.
    seconds
        Seconds from the start until the solver ended, with the time to build the program.
    progress
        (seconds, value, bound) whenever the solver reported a better one, in tokens/s.

    Examples
    --------
    >>> SolverRun({}, 0.0, 250.0, 3.0, ()).gap
    inf
    """

    placement: Placement
    flow_tokens_per_s: float
    bound_tokens_per_s: float
    seconds: float
    progress: tuple[tuple[float, float, float], ...]

    @property
    def gap(self) -> float:
        """(bound - flow) / flow; infinite without a placement."""
        if self.flow_tokens_per_s <= 0:
            return float("inf")
        return max(0.0, self.bound_tokens_per_s - self.flow_tokens_per_s) / self.flow_tokens_per_s


def solve_alone(
    problem: Problem,
    *,
    solver: str = "highs",
    time_limit_s: float = 60.0,
    tighten: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> SolverRun:
    """Solve the paper's program with nothing but the solver.

    Parameters
    ----------
    problem
        Cluster, model and throughputs.
    solver
        ``highs``, ``glpk`` or ``gurobi``.
    time_limit_s
        Seconds that the solver may take.
    tighten
        Whether coefficients are cut down to the proven bound B1. False: the paper's own coefficients.
    seed
        Seed of the solver's random choices.
    progress
        Called with (seconds, best value, bound, message), values in tokens/s.

    Returns
    -------
    SolverRun
        The solver's own placement, value, bound and progress.

    Raises
    ------
    InputError
        When the solver is unknown or not installed.

    Examples
    --------
    >>> from helix_kit.cluster import Cluster
    >>> from helix_kit.model import Model
    >>> cluster = Cluster.model_validate({"name": "pair", "nodes": [{"gpu": "L4", "count": 2}]})
    >>> model = Model.preset("llama2-70b").model_copy(update={"num_layers": 8})
    >>> run = solve_alone(Problem.of(cluster, model), time_limit_s=10.0)
    >>> sorted(run.placement.values()), round(run.gap, 6)
    ([(0, 4), (4, 8)], 0.0)
    """
    started = time.perf_counter()
    cap = None
    if tighten:
        cap = least_bound(problem, groups_of(problem), lambda g, n, _: spread_bound(g, n), math.inf)
    program = build(problem, cap_tokens_per_s=cap)
    history: list[tuple[float, float, float]] = []

    def note(value: float | None, bound: float | None) -> None:
        before = history[-1][1:] if history else (-1.0, float("inf"))
        value = max(before[0], 0.0, value if value is not None and value > NO_FLOW else 0.0)
        bound = min(before[1], float("inf") if bound is None else bound)
        if (value, bound) == before:
            return
        history.append((time.perf_counter() - started, value, bound))
        if progress is not None:
            progress(history[-1][0], value, bound, "")

    solution = solve_model(program, SolverSettings(solver, time_limit_s, seed=seed), progress=note)
    placement: Placement = {}
    if solution.value is not None and solution.value > NO_FLOW:
        placement = read_placement(program)
    flow = problem.max_flow(placement).tokens_per_s if placement else 0.0
    bound = solution.bound if solution.bound is not None else float("inf")
    note(solution.value, solution.bound)
    return SolverRun(placement if flow > 0 else {}, flow, bound, time.perf_counter() - started, tuple(history))


__all__ = ["SolverRun", "solve_alone"]
