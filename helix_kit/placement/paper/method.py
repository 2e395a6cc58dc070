"""Method ``paper-milp``: the paper's program, started from a heuristic, kept honest by an independent max flow."""

from __future__ import annotations

from helix_kit.errors import InfeasibleError, InputError
from helix_kit.flow import Placement
from helix_kit.placement import bounds
from helix_kit.placement.baselines import petals_placement, swarm_placement
from helix_kit.placement.method import Placed, Task
from helix_kit.placement.paper import program as paper_milp
from helix_kit.placement.solvers import Solution, SolverSettings, solve_model, write_lp


def place(task: Task) -> Placed:
    """The best of the program's incumbent and the heuristic that it started from.

    Options: ``degree`` prunes links, ``initial`` (default True) gives the heuristic's plan as first incumbent,
    ``mip_gap`` ends the search early, ``tighten`` (default True) cuts coefficients at a proven bound, ``write_lp`` is
    a file for the program with readable names.
    """
    options, problem = task.options, task.problem
    degree, gap = options.degree, options.mip_gap
    cap = bounds.spread_bound(task.groups, problem.num_layers) if options.tighten else None
    start = best_heuristic(task)
    notes = []
    model = paper_milp.build(problem, partial_inference=options.partial_inference, degree=degree, cap_tokens_per_s=cap)
    size = paper_milp.size_of(model)
    notes.append(
        f"program: {size.constraints} constraints, {size.variables} variables "
        f"({size.continuous} continuous, {size.integer} integer, {size.binary} binary)"
    )
    if options.write_lp is not None:
        try:
            write_lp(model, options.write_lp)
        except OSError as error:
            raise InputError(
                f"cannot be written ({error.strerror})", field="write_lp", value=str(options.write_lp)
            ) from None
        notes.append(f"program written to {options.write_lp}")
    warm = start is not None and options.initial
    if warm and start is not None:
        links = set(model.links)
        flow = task.max_flow(start[1], links)
        paper_milp.set_initial_values(model, start[1], flow)
        task.watch.report(value=flow.tokens_per_s, message=f"start from {start[0]}")

    def report(value: float | None, bound: float | None) -> None:
        task.watch.report(value=value, bound=bound)

    settings = SolverSettings(task.options.solver, task.watch.left_s, gap, task.options.seed, task.watch.stopped)
    solution = solve_model(model, settings, warm_start=warm, progress=report)
    candidates: list[Placed] = []
    if solution.value is not None and solution.value > 0:
        candidates.append(Placed(paper_milp.read_placement(model), solver=task.options.solver))
    if start is not None:
        candidates.append(Placed(start[1], solver=task.options.solver))
    if not candidates:
        raise InfeasibleError(
            f"the paper's program found no placement in {task.watch.seconds:.1f} s ({_end(task, solution, gap)}), and "
            "no heuristic has one",
            fix="use method 'pattern', or a longer time limit",
        )
    found = max(candidates, key=lambda c: task.max_flow(c.placement).tokens_per_s)
    ended = f"{task.options.solver} took {task.watch.seconds:.1f} s ({_end(task, solution, gap)})"
    value = task.max_flow(found.placement).tokens_per_s
    if start is not None and value <= task.max_flow(start[1]).tokens_per_s * (1 + 1e-9):
        ended += f" and found nothing better than the {start[0]} heuristic's placement"
    notes.append(ended)
    found.notes = notes
    # A program with links left out bounds only itself.
    if degree is None and solution.bound is not None:
        found.bounds["paper-milp"] = solution.bound
    return found


def _end(task: Task, solution: Solution, gap: float) -> str:
    """Why the solver ended, in words."""
    if task.watch.stopped():
        return "stopped"
    if task.watch.left_s <= 0:
        return "the time limit"
    if solution.infeasible:
        return "proven to have no solution"
    if solution.value is not None and solution.bound is not None:
        return f"ended within {gap:g} of its bound"
    return "ended without a solution"


def best_heuristic(task: Task) -> tuple[str, Placement] | None:
    """Name and placement of the better of swarm and petals, or None when neither carries any flow."""
    best: tuple[float, str, Placement] | None = None
    for name in ("petals", "swarm"):
        try:
            swarm = name == "swarm"
            layout = swarm_placement(task.problem) if swarm else petals_placement(task.problem, task.options.seed)
        except InfeasibleError:
            continue
        value = task.max_flow(layout).tokens_per_s
        if value > 0 and (best is None or value > best[0]):
            best = (value, name, layout)
    return best[1:] if best else None
