"""Method ``paper-milp``: the paper's program, started from a heuristic, kept honest by an independent max flow."""

from __future__ import annotations

from helix_kit.errors import InfeasibleError
from helix_kit.placement import bounds, heuristics, paper_milp
from helix_kit.placement.planner import Found, Task
from helix_kit.placement.solvers import solve

RELATIVE_GAP = 1e-4


def find(task: Task) -> Found:
    """The best of the program's incumbent and the heuristic that it started from.

    Options: ``degree`` prunes links, ``initial`` (default True) gives the heuristic's plan as first incumbent,
    ``mip_gap`` ends the search early, ``tighten`` (default True) cuts coefficients at a proven bound.
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
    warm = start is not None and options.get("initial", True)
    if warm and start is not None:
        links = set(model.links)
        flow = problem.max_flow(start[1], partial_inference=task.partial_inference, links=links)
        paper_milp.set_initial_values(model, start[1], flow)
        task.watch.report(value=flow.tokens_per_s, message=f"start from {start[0]}")

    def report(value: float | None, bound: float | None) -> None:
        task.watch.report(value=value, bound=bound)

    solution = solve(
        model,
        task.solver,
        time_limit=task.watch.left,
        mip_gap=gap,
        seed=task.seed,
        warm_start=warm,
        stop=task.watch.stopped,
        progress=report,
    )
    candidates: list[Found] = []
    if solution.value is not None and solution.value > 0:
        candidates.append(Found(paper_milp.read_placement(model), solver=task.solver))
    if start is not None:
        candidates.append(Found(start[1], solver=task.solver))
    if not candidates:
        raise InfeasibleError(
            f"the paper's program found no placement within {task.watch.time_limit:g} s, and no heuristic has one",
            fix="use method 'pattern', or a longer time limit",
        )
    found = max(candidates, key=lambda c: task.flow(c).tokens_per_s)
    if start is not None and found.placement == start[1]:
        what = "nothing" if not solution.value else f"nothing better than {solution.value:.1f} tokens/s"
        notes.append(
            f"{task.solver} found {what} within {task.watch.time_limit:g} s: "
            f"the placement is the {start[0]} heuristic's"
        )
    found.notes = notes
    # A program with links left out bounds only itself.
    if degree is None and solution.bound is not None:
        found.bounds["paper-milp"] = solution.bound
    return found


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
