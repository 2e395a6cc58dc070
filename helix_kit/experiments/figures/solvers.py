"""Ablations and solver quality (paper sections 6.8 and 6.9): Gurobi as published, open solvers, and our program."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import pandas as pd

from helix_kit import _files
from helix_kit.cluster import Cluster
from helix_kit.errors import InfeasibleError
from helix_kit.experiments.figures.common.limits import COUNTED_S
from helix_kit.experiments.figures.common.metrics import SPEED
from helix_kit.experiments.figures.common.published import PublishedRun, published_run
from helix_kit.experiments.figures.common.settings import DATA, helix_simulation, joined_requests
from helix_kit.experiments.figures.common.simulated import simulated
from helix_kit.experiments.figures.pictures.solvers import draw_ablations, draw_convergence, draw_quality, draw_sizes
from helix_kit.experiments.machinery.registry import Context, experiment
from helix_kit.model import Model
from helix_kit.placement.paper import program as paper_milp
from helix_kit.placement.paper.alone import NO_FLOW, solve_alone
from helix_kit.placement.planner import plan_problem
from helix_kit.placement.problem import Problem
from helix_kit.placement.solvers import SolverSettings, solve_model

DEGREE = 12
"""Links that the paper's pruning keeps at each node."""
CASES = (
    ("single24", "llama2-70b", None, "not pruned (none needed), with initial values"),
    ("geo24", "llama2-70b", DEGREE, "pruned, with initial values"),
    ("geo24", "llama2-70b", None, "not pruned"),
    ("hetero42", "llama2-70b", DEGREE, "pruned, with initial values"),
    ("hetero42", "llama2-70b", None, "not pruned"),
    ("cluster10", "llama-30b", None, "solved to optimality"),
)
QUALITY_S, FAST_QUALITY_S = 60.0, 5.0
"""Seconds for each method on the cluster of ten nodes."""
PAPER_S, FAST_PAPER_S = 30.0, 2.0
"""Seconds for each open solver on the paper's program, on each cluster."""


OUR_PROGRAM = "pattern program (ours)"
Point = tuple[float, float | None, float | None]
"""Seconds, value and bound; None while a value is not known."""


def published_solver(name: str = "solver") -> pd.DataFrame:
    """Published solver logs: ``solver`` (one row for each solve) or ``solver_progress`` (one for each incumbent)."""
    return pd.read_csv(_files.data_dir() / "published" / f"{name}.csv")


@experiment(
    "problem-sizes",
    title="Size of the paper's program with and without pruning",
    paper="Table of section 6.8",
    draw=draw_sizes,
    data=DATA,
    minutes=0.3,
    text="Constraints and variables of the paper's mixed-integer program as built here and as the published solver "
    "logs report them. Pruning keeps the 12 fastest links of each node. The numbers show that it keeps the same ones "
    "of equally fast links as the published program.",
)
def problem_sizes(context: Context) -> pd.DataFrame:
    """One row for each program: cluster, model, links kept, constraints, variables, ours and published."""
    logs = {(r["cluster"], r["model"], r["variant"]): r for r in published_solver().to_dict("records")}
    rows = []
    for cluster, model, degree, variant in CASES:
        context.say(f"{cluster} {variant}")
        problem = Problem.of(Cluster.preset(cluster), Model.preset(model))
        size = paper_milp.size_of(paper_milp.build(problem, degree=degree))
        log = logs[(cluster, model, variant)]
        rows.append(
            {
                "cluster": cluster,
                "model": model,
                "links_per_node": "all" if degree is None else degree,
                "constraints": size.constraints,
                "constraints_published": int(log["constraints"]),
                "variables": size.variables,
                "variables_published": int(log["variables"]),
                "binary": size.binary,
                "continuous": size.continuous,
            }
        )
    return pd.DataFrame(rows)


GUROBI = "paper's program, Gurobi (published)"
OPEN_SOLVERS = (("paper's program, GLPK alone", "glpk"), ("paper's program, HiGHS alone", "highs"))
"""Solvers of the paper's program without a heuristic's start and without a fallback."""
QUALITY_METHODS: tuple[tuple[str, str, str], ...] = (
    ("pattern program, GLPK", "pattern", "glpk"),
    ("pattern program, HiGHS", "pattern", "highs"),
    ("Swarm", "swarm", "highs"),
    ("Petals", "petals", "highs"),
    ("separate pipelines", "separate", "highs"),
)


@experiment(
    "solver-quality",
    title="Solver quality on the cluster of 10 nodes",
    paper="Section 6.9",
    draw=draw_quality,
    data=DATA,
    minutes=2.5,
    measures=("method", "seconds", "flow_tokens_per_s", "bound_tokens_per_s"),
    text="Flow of the best plan of each method. Gurobi, as published, proved its plan optimal after 3,803 s. GLPK and "
    "HiGHS have a minute for the paper's program, without a heuristic's start and without a fallback: their bars are "
    "what they find themselves on this machine. Separate pipelines pass the optimum because they put more layers on "
    "machines than fit into their memory beside a useful KV cache.",
)
def solver_quality(context: Context) -> pd.DataFrame:
    """One row for each method: flow, share of the published optimum.

    Seconds and bounds are measured. So is what the open solvers find on the paper's program, which depends on the
    machine.
    """
    log = next(r for r in published_solver().to_dict("records") if r["cluster"] == "cluster10")
    optimum = float(log["flow_tokens_per_s"])
    rows = [{"method": GUROBI, "flow_tokens_per_s": optimum}]
    context.measured[GUROBI] = [[float(log["seconds"]), optimum, optimum]]
    problem = Problem.of(Cluster.preset("cluster10"), Model.preset("llama-30b"))
    time_limit_s = FAST_QUALITY_S if context.fast else QUALITY_S
    for label, solver in OPEN_SOLVERS:
        context.say(label)
        run = solve_alone(problem, solver=solver, time_limit_s=time_limit_s, seed=context.seed)
        bound = run.bound_tokens_per_s if math.isfinite(run.bound_tokens_per_s) else None
        context.measured[label] = [[round(run.seconds, 2), round(run.flow_tokens_per_s, 3), bound]]
    for label, method, solver in QUALITY_METHODS:
        context.say(label)
        try:
            plan = plan_problem(problem, method=method, solver=solver, time_limit_s=time_limit_s, seed=context.seed)
        except InfeasibleError:
            continue
        rows.append({"method": label, "flow_tokens_per_s": plan.flow_tokens_per_s})
        context.measured[label] = [[round(plan.seconds, 2), plan.flow_tokens_per_s, plan.bound_tokens_per_s]]
    table = pd.DataFrame(rows)
    table["share_of_optimum"] = table["flow_tokens_per_s"] / optimum
    return table


@experiment(
    "ablations",
    title="Cluster pruning and initial values",
    paper="Section 6.8",
    draw=draw_ablations,
    data=DATA,
    minutes=2.0,
    text="Above: max flow of the published Gurobi runs with and without pruning and initial values, and of our "
    "pattern program, which uses neither and all links. Below: decode throughput of the plans in our simulator, for "
    "the pruned and unpruned plans also as published. The plan with the largest flow does not serve most, because it "
    "has longer chains.",
)
def ablations(context: Context) -> pd.DataFrame:
    """One row for each cluster and variant: flow, Gurobi's seconds to it, decode throughput published and ours."""
    rows: list[dict[str, Any]] = []
    logs = published_solver()
    for log in logs[logs["cluster"].isin(["geo24", "hetero42"])].to_dict("records"):
        run = _ablation_run(log["cluster"], log["variant"])
        row = {key: log[key] for key in ("cluster", "variant", "flow_tokens_per_s", "seconds_to_flow")}
        if run is not None:
            context.say(f"{log['cluster']} {log['variant']}")
            row["decode_published"] = run.values("simulation").get(SPEED)
            row["decode_ours"] = simulated(run.simulations(seed=context.seed), context).metrics[SPEED]
        rows.append(row)
    for cluster in ("geo24", "hetero42"):
        context.say(f"{cluster} pattern program")
        problem = Problem.of(Cluster.preset(cluster), Model.preset("llama2-70b"))
        plan = plan_problem(problem, time_limit_s=COUNTED_S, deterministic=True, seed=context.seed)
        context.measured[f"seconds of the pattern program, {cluster}"] = round(plan.seconds, 2)
        requests = joined_requests(published_run(SETUPS[cluster], "llama2-70b", "helix", "offline").subclusters[:1])
        simulation = helix_simulation(plan, "offline", requests, seed=context.seed)
        rows.append(
            {
                "cluster": cluster,
                "variant": "pattern program, all links",
                "flow_tokens_per_s": plan.flow_tokens_per_s,
                "decode_ours": simulated([simulation], context).metrics[SPEED],
            }
        )
    return pd.DataFrame(rows)


SETUPS = {"geo24": "geo", "hetero42": "hetero42"}
"""Preset of a cluster -> its name in the published results."""


def _ablation_run(cluster: str, variant: str) -> PublishedRun | None:
    """The published simulation of a variant's plan, if there is one."""
    nodes = {"geo24": "24", "hetero42": "42"}[cluster]
    if variant == "not pruned":
        return published_run("ablation", "llama2-70b", f"helix_no_pruning_{nodes}", "offline")
    if variant.startswith("pruned"):
        return published_run(SETUPS[cluster], "llama2-70b", "helix", "offline")
    return None


@experiment(
    "convergence",
    title="Value and bound over time: Gurobi as published, and our program",
    paper="Section 6.9",
    draw=draw_convergence,
    data=DATA,
    minutes=5.0,
    measures=("cluster", "solver", "seconds", "flow_tokens_per_s", "bound_tokens_per_s"),
    text="Solid: best flow so far. Dashed: proven bound. The paper's program is solved by Gurobi as published, and by "
    "GLPK and HiGHS for half a minute each on this machine, with all links. HiGHS starts from the better heuristic, as "
    "Gurobi does. GLPK takes no start: its curve begins with the first plan that it finds itself, if any. The bound of "
    "our program falls until a plan meets it; the plan is found at the end. The published runs on 24 and 42 machines "
    "stop with bounds of 20 to 60 times the value.",
)
def convergence(context: Context) -> pd.DataFrame:
    """One row for each incumbent of Gurobi, as published, and one with the last value and bound of our program.

    The seconds of our program are measured. So are the results of the open solvers on the paper's program, since what
    they reach in half a minute depends on the machine.
    """
    table = published_solver("solver_progress")
    order = list(dict.fromkeys(table["cluster"]))
    # The progress logs list each better plan; the end of each solve stands in the other table.
    table = pd.concat([table, published_solver()])
    table = pd.concat([table[table["cluster"] == cluster] for cluster in order])
    table = table[~table["variant"].isin(["not pruned", "no initial values"])].assign(solver="Gurobi (published)")
    rows = []
    for cluster, model in list(dict.fromkeys(zip(table["cluster"], table["model"], strict=True))):
        context.say(cluster)
        problem = Problem.of(Cluster.preset(cluster), Model.preset(model))
        plan = plan_problem(problem, time_limit_s=COUNTED_S, deterministic=True, seed=context.seed)
        curves: dict[str, Sequence[Point]] = {OUR_PROGRAM: plan.progress}
        for solver, name in (("glpk", "GLPK"), ("highs", "HiGHS")):
            context.say(f"{cluster}, the paper's program with {name}")
            curves[name] = _paper_progress(problem, solver, FAST_PAPER_S if context.fast else PAPER_S)
        context.measured[cluster] = {
            name: [[None if v is None else round(v, 3) for v in point] for point in points]
            for name, points in curves.items()
        }
        rows.append(
            {
                "cluster": cluster,
                "model": model,
                "solver": OUR_PROGRAM,
                "flow_tokens_per_s": plan.flow_tokens_per_s,
                "bound_tokens_per_s": plan.bound_tokens_per_s,
            }
        )
    columns = ["cluster", "model", "solver", "seconds", "flow_tokens_per_s", "bound_tokens_per_s"]
    return pd.concat([table, pd.DataFrame(rows)])[columns]


def _paper_progress(problem: Problem, solver: str, time_limit_s: float) -> list[Point]:
    """Value and bound in tokens/s over a solve of the paper's program with all links, bounds as the solver finds them.

    The start is the plan of the better heuristic, as in the paper. GLPK takes no start, so it has no value until it
    finds a plan itself.
    """
    program = paper_milp.build(problem)
    takes_start = solver != "glpk"
    value_at_start: float | None = None
    if takes_start:
        starts = [plan_problem(problem, method=name) for name in ("petals", "swarm")]
        best = max(starts, key=lambda plan: plan.flow_tokens_per_s)
        paper_milp.set_initial_values(program, best.placement, problem.max_flow(best.placement))
        value_at_start = best.flow_tokens_per_s
    started = time.perf_counter()
    points: list[Point] = [(0.0, value_at_start, None)]

    def report(value: float | None, bound: float | None) -> None:
        _, last_value, last_bound = points[-1]
        best_bound = bound if last_bound is None else min(last_bound, bound or last_bound)
        # Solvers report a first solution without any flow, which is no plan.
        found = [v for v in (last_value, value) if v is not None and v > NO_FLOW]
        point = (max(found, default=None), best_bound)
        if point != (last_value, last_bound):
            points.append((time.perf_counter() - started, *point))

    settings = SolverSettings(solver, time_limit_s=time_limit_s, mip_gap=1e-4)
    solution = solve_model(program, settings, warm_start=takes_start, progress=report)
    report(solution.value, solution.bound)
    return [*points, (time.perf_counter() - started, *points[-1][1:])]
