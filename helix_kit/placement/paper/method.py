"""Method ``paper-milp``: the paper's program, started from a heuristic, kept honest by an independent max flow."""

from __future__ import annotations

from helix_kit.errors import InfeasibleError, InputError
from helix_kit.placement.baselines import heuristics
from helix_kit.placement.bounds import bounds
from helix_kit.placement.method import Found, Task
from helix_kit.placement.paper import program as paper_milp
from helix_kit.placement.solvers import Solution, SolverSettings, solve_model, write_lp

RELATIVE_GAP = 1e-4


def find(task: Task) -> Found:
    """The best of the program's incumbent and the heuristic that it started from.

    Options: ``degree`` prunes links, ``initial`` (default True) gives the heuristic's plan as first incumbent,
    ``mip_gap`` ends the search early, ``tighten`` (default True) cuts coefficients at a proven bound, ``write_lp`` is
    a file for the program with readable names.
    """
    options, problem = task.options, task.problem
    degree, gap = options.get("degree"), options.get("mip_gap", RELATIVE_GAP)
    cap = bounds.b1(task.groups, problem.num_layers) if options.get("tighten", True) else None
    start = best_heuristic(task)
    notes = []
    model = paper_milp.build(problem, partial_inference=task.partial_inference, degree=degree, cap_tokens_per_s=cap)
    size = paper_milp.size_of(model)
    notes.append(
        f"program: {size.constraints} constraints, {size.variables} variables "
        f"({size.continuous} continuous, {size.integer} integer, {size.binary} binary)"
    )
    if options.get("write_lp") is not None:
        try:
            write_lp(model, options["write_lp"])
        except OSError as error:
            raise InputError(
                f"cannot be written ({error.strerror})", field="write_lp", value=str(options["write_lp"])
            ) from None
        notes.append(f"program written to {options['write_lp']}")
    warm = start is not None and options.get("initial", True)
    if warm and start is not None:
        links = set(model.links)
        flow = problem.max_flow(start[1], partial_inference=task.partial_inference, links=links)
        paper_milp.set_initial_values(model, start[1], flow)
        task.watch.report(value=flow.tokens_per_s, message=f"start from {start[0]}")

    def report(value: float | None, bound: float | None) -> None:
        task.watch.report(value=value, bound=bound)

    settings = SolverSettings(task.solver, task.watch.left, gap, task.seed, task.watch.stopped)
    solution = solve_model(model, settings, warm_start=warm, progress=report)
    candidates: list[Found] = []
    if solution.value is not None and solution.value > 0:
        candidates.append(Found(paper_milp.read_placement(model), solver=task.solver))
    if start is not None:
        candidates.append(Found(start[1], solver=task.solver))
    if not candidates:
        raise InfeasibleError(
            f"the paper's program found no placement in {task.watch.seconds:.1f} s ({_end(task, solution, gap)}), and "
            "no heuristic has one",
            fix="use method 'pattern', or a longer time limit",
        )
    found = max(candidates, key=lambda c: task.flow(c).tokens_per_s)
    ended = f"{task.solver} took {task.watch.seconds:.1f} s ({_end(task, solution, gap)})"
    if start is not None and task.flow(found).tokens_per_s <= task.flow(Found(start[1])).tokens_per_s * (1 + 1e-9):
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
    if task.watch.left <= 0:
        return "the time limit"
    if solution.infeasible:
        return "proven to have no solution"
    if solution.value is not None and solution.bound is not None:
        return f"ended within {gap:g} of its bound"
    return "ended without a solution"


def best_heuristic(task: Task) -> tuple[str, heuristics.Layout] | None:
    """Name and placement of the better of swarm and petals, or None when neither carries any flow."""
    best: tuple[float, str, heuristics.Layout] | None = None
    for name in ("petals", "swarm"):
        try:
            layout = heuristics.swarm(task.problem) if name == "swarm" else heuristics.petals(task.problem, task.seed)
        except InfeasibleError:
            continue
        value = task.flow(Found(layout)).tokens_per_s
        if value > 0 and (best is None or value > best[0]):
            best = (value, name, layout)
    return best[1:] if best else None
