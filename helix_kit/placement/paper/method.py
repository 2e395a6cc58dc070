"""Method ``paper-milp``: the paper's program (Helix, section 4.4), started from a heuristic's placement.

What a solver says is not taken as the flow: each placement is evaluated by an exact maximum flow.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import pyomo.environ as pyo

from helix_kit.errors import InfeasibleError, InputError
from helix_kit.flow import Placement
from helix_kit.placement.baselines import petals_placement, swarm_placement
from helix_kit.placement.bounds import least_bound, spread_bound
from helix_kit.placement.method import Placed, PlanOptions, Task
from helix_kit.placement.paper.program import build, read_placement, set_initial_values, size_of
from helix_kit.placement.solvers import Solution, SolverSettings, solve_model, write_lp


class Heuristic(NamedTuple):
    """The placement of a heuristic and the tokens/s of its maximum flow."""

    name: str
    placement: Placement
    tokens_per_s: float


def place(task: Task) -> Placed:
    """Solve the paper's program and return the better of its incumbent and the heuristic that it started from.

    Parameters
    ----------
    task
        The problem and its options. Of this method are ``degree`` (keep only the fastest links of each node),
        ``initial`` (offer the heuristic's placement as the first incumbent), ``mip_gap`` (relative gap at which the
        solver ends), ``tighten`` (cut coefficients down to a proven bound) and ``write_lp`` (a file for the program).

    Returns
    -------
    Placed
        The placement, the program's bound (only with all links: otherwise the program bounds only itself), and notes on
        the size of the program and on why the solver ended.

    Raises
    ------
    InfeasibleError
        When neither the program nor a heuristic gives a placement that carries flow.
    InputError
        When the file of ``write_lp`` cannot be written.

    Examples
    --------
    >>> from helix_kit.cluster import Cluster
    >>> from helix_kit.model import Model
    >>> from helix_kit.placement.groups import groups_of
    >>> from helix_kit.placement.problem import Problem
    >>> from helix_kit.placement.watch import Watch
    >>> cluster = Cluster.model_validate({"name": "pair", "nodes": [{"gpu": "L4", "count": 2}]})
    >>> model = Model.preset("llama2-70b").model_copy(update={"num_layers": 8})
    >>> problem = Problem.of(cluster, model)
    >>> placed = place(Task(problem, Watch(10.0), groups_of(problem)))
    >>> sorted(placed.placement.values())
    [(0, 4), (4, 8)]
    """
    options, watch = task.options, task.watch
    cap = None
    if options.tighten:
        cap = least_bound(task.problem, task.groups, lambda g, n, _: spread_bound(g, n), math.inf)
    heuristic = best_heuristic(task)
    model = build(
        task.problem, partial_inference=options.partial_inference, degree=options.degree, cap_tokens_per_s=cap
    )
    size = size_of(model)
    notes = [
        f"program: {size.constraints} constraints, {size.variables} variables "
        f"({size.continuous} continuous, {size.integer} integer, {size.binary} binary)"
    ]
    if options.write_lp is not None:
        notes.append(_write(model, options))
    if heuristic is not None and options.initial:
        # The first incumbent uses only the program's links, of which there may be fewer than the cluster's.
        flow = task.max_flow(heuristic.placement, set(model.links))
        set_initial_values(model, heuristic.placement, flow)
        watch.report(flow.tokens_per_s, message=f"start from {heuristic.name}", placement=heuristic.placement)
    settings = SolverSettings(options.solver, watch.left_s, options.mip_gap, options.seed, watch.stopped)
    solution = solve_model(
        model,
        settings,
        warm_start=heuristic is not None and options.initial,
        progress=lambda value, bound: watch.report(value=value, bound=bound),
    )
    placement, note = _better(task, model, solution, heuristic)
    placed = Placed(placement, notes=[*notes, note], solver=options.solver)
    if options.degree is None and solution.bound is not None:
        placed.bounds["paper-milp"] = solution.bound
    return placed


def _write(model: pyo.ConcreteModel, options: PlanOptions) -> str:
    """Write the program to the file of ``write_lp``, and return a note on it."""
    assert options.write_lp is not None
    try:
        write_lp(model, options.write_lp)
    except OSError as error:
        message = f"cannot be written ({error.strerror})"
        raise InputError(message, field="write_lp", value=str(options.write_lp)) from None
    return f"program written to {options.write_lp}"


def _better(
    task: Task, model: pyo.ConcreteModel, solution: Solution, heuristic: Heuristic | None
) -> tuple[Placement, str]:
    """The better placement of the program and the heuristic, and a note on the solver's end."""
    reason = _reason_of_end(task, solution)
    seconds = f"{task.watch.seconds:.1f} s"
    placement = read_placement(model) if solution.value is not None and solution.value > 0 else None
    if placement is None and heuristic is None:
        raise InfeasibleError(
            f"the paper's program found no placement in {seconds} ({reason}), and no heuristic has one",
            fix="use method 'pattern', or a longer time limit",
        )
    note = f"{task.options.solver} took {seconds} ({reason})"
    value = 0.0 if placement is None else task.max_flow(placement).tokens_per_s
    if heuristic is None:
        assert placement is not None
        return placement, note
    if max(value, heuristic.tokens_per_s) <= heuristic.tokens_per_s * (1 + 1e-9):
        note += f" and found nothing better than the {heuristic.name} heuristic's placement"
    return (placement if placement is not None and value >= heuristic.tokens_per_s else heuristic.placement), note


def _reason_of_end(task: Task, solution: Solution) -> str:
    """Why the solver ended."""
    if task.watch.stopped():
        return "stopped"
    if task.watch.left_s <= 0:
        return "the time limit"
    if solution.infeasible:
        return "proven to have no solution"
    if solution.value is not None and solution.bound is not None:
        return f"ended within {task.options.mip_gap:g} of its bound"
    return "ended without a solution"


def best_heuristic(task: Task) -> Heuristic | None:
    """The better of petals and swarm; None when neither carries any flow."""
    best: Heuristic | None = None
    for name in ("petals", "swarm"):
        try:
            swarm = name == "swarm"
            placement = swarm_placement(task.problem) if swarm else petals_placement(task.problem, task.options.seed)
        except InfeasibleError:
            continue
        value = task.max_flow(placement).tokens_per_s
        if value > 0 and (best is None or value > best.tokens_per_s):
            best = Heuristic(name, placement, value)
    return best
