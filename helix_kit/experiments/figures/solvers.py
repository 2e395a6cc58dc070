"""Ablations and solver quality (paper sections 6.8 and 6.9): Gurobi as published, open solvers and our program."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pandas as pd

from helix_kit import _files
from helix_kit.cluster import Cluster
from helix_kit.errors import InfeasibleError
from helix_kit.experiments.figures.common import published
from helix_kit.experiments.figures.common.limits import AMPLE_S
from helix_kit.experiments.figures.common.settings import requests_of, serving
from helix_kit.experiments.figures.pictures.solvers import draw_ablations, draw_convergence, draw_quality, draw_sizes
from helix_kit.experiments.machinery.registry import Context, experiment
from helix_kit.experiments.figures.common.simulated import simulated
from helix_kit.model import Model
from helix_kit.placement.paper import program as paper_milp
from helix_kit.placement.solvers import SolverSettings, solve_model
from helix_kit.planning import plan
from helix_kit.placement.problem import Problem

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
PAPER_S, FAST_PAPER_S = 30.0, 2.0
"""For each open solver on the paper's program, on each cluster."""
DATA = ("clusters", "models", "profiles", "gpus.csv", "published")


Point = tuple[float, float | None, float | None]
"""Seconds, value and bound; None: not known yet."""


def published_solver(name: str = "solver") -> pd.DataFrame:
    """Published solver logs: ``solver`` (one row a solve) or ``solver_progress`` (one row an incumbent)."""
    return pd.read_csv(_files.data_dir() / "published" / f"{name}.csv")


@experiment(
    "problem-sizes",
    title="Size of the paper's program with and without pruning",
    paper="Table of section 6.8",
    draw=draw_sizes,
    data=DATA,
    minutes=0.3,
    text="Constraints and variables of the paper's mixed-integer program as built here and as the published solver "
    "logs report them. Pruning keeps the 12 fastest links of each node; the numbers tell which of equally fast links "
    "the published program keeps.",
)
def problem_sizes(context: Context) -> pd.DataFrame:
    """One row a program: cluster, model, links kept, constraints, variables, ours and published."""
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


QUALITY_METHODS: tuple[tuple[str, str, str], ...] = (
    ("paper's program, GLPK", "paper-milp", "glpk"),
    ("paper's program, HiGHS", "paper-milp", "highs"),
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
    text="Flow of the plan that each solver has after a minute. Gurobi, as published, proved its plan optimal after "
    "3,803 s. The paper's program starts from the better heuristic here, as in the paper; where the open solver finds "
    "nothing better, the heuristic's plan is what it has.",
)
def solver_quality(context: Context) -> pd.DataFrame:
    """One row a method: flow, share of the published optimum; seconds and proven gap are in the provenance."""
    log = next(r for r in published_solver().to_dict("records") if r["cluster"] == "cluster10")
    gurobi = "paper's program, Gurobi (published)"
    rows = [{"method": gurobi, "flow_tokens_per_s": float(log["flow_tokens_per_s"])}]
    context.measured[gurobi] = [float(log["seconds"]), 0.0]
    for label, method, solver in QUALITY_METHODS:
        context.say(label)
        try:
            made = plan(
                Cluster.preset("cluster10"),
                Model.preset("llama-30b"),
                method=method,
                solver=solver,
                time_limit_s=5.0 if context.fast else 60.0,
                seed=context.seed,
            )
        except InfeasibleError:
            continue
        rows.append({"method": label, "flow_tokens_per_s": made.flow_tokens_per_s})
        context.measured[label] = [round(made.seconds, 2), round(made.gap, 5)]
    table = pd.DataFrame(rows)
    table["share_of_optimum"] = table["flow_tokens_per_s"] / table["flow_tokens_per_s"].iloc[0]
    return table


@experiment(
    "ablations",
    title="Cluster pruning and initial values",
    paper="Section 6.8",
    draw=draw_ablations,
    data=DATA,
    minutes=2.0,
    text="What pruning and initial values are worth to the published Gurobi runs, and our pattern program, which needs "
    "neither: it sees all links. Below: decode throughput that the plans serve (in our simulator; the pruned and "
    "unpruned plans also as published). More flow is not more served: the plan of most flow has longer chains.",
)
def ablations(context: Context) -> pd.DataFrame:
    """One row a cluster and variant: flow, Gurobi's seconds to it (published), decode throughput published and ours."""
    rows: list[dict[str, Any]] = []
    logs = published_solver()
    for log in logs[logs["cluster"].isin(["geo24", "hetero42"])].to_dict("records"):
        run = _ablation_run(log["cluster"], log["variant"])
        row = {key: log[key] for key in ("cluster", "variant", "flow_tokens_per_s", "seconds_to_flow")}
        if run is not None:
            context.say(f"{log['cluster']} {log['variant']}")
            row["decode_published"] = run.published("simulation").get("decode_tokens_per_s")
            row["decode_ours"] = simulated(run.calls(seed=context.seed), context).metrics["decode_tokens_per_s"]
        rows.append(row)
    for cluster in ("geo24", "hetero42"):
        context.say(f"{cluster} pattern program")
        made = plan(Cluster.preset(cluster), Model.preset("llama2-70b"), time_limit_s=AMPLE_S, seed=context.seed)
        context.measured[f"seconds of the pattern program, {cluster}"] = round(made.seconds, 2)
        helix = published.find(SETUPS[cluster], "llama2-70b", "helix", "offline")
        call = serving(made, "offline", requests_of(helix.parts[:1]), seed=context.seed)
        rows.append(
            {
                "cluster": cluster,
                "variant": "pattern program, all links",
                "flow_tokens_per_s": made.flow_tokens_per_s,
                "decode_ours": simulated([call], context).metrics["decode_tokens_per_s"],
            }
        )
    return pd.DataFrame(rows)


SETUPS = {"geo24": "geo", "hetero42": "hetero42"}


def _ablation_run(cluster: str, variant: str) -> published.PublishedRun | None:
    nodes = {"geo24": "24", "hetero42": "42"}[cluster]
    if variant == "not pruned":
        return published.find("ablation", "llama2-70b", f"helix_no_pruning_{nodes}", "offline")
    if variant.startswith("pruned"):
        return published.find(SETUPS[cluster], "llama2-70b", "helix", "offline")
    return None


@experiment(
    "convergence",
    title="Value and bound over time: Gurobi as published, and our program",
    paper="Section 6.9",
    draw=draw_convergence,
    data=DATA,
    minutes=5.0,
    measures=("cluster", "solver", "seconds", "flow_tokens_per_s", "bound_tokens_per_s"),
    text="Solid: best flow so far; dashed: proven bound. The paper's program by Gurobi as published, and by GLPK and "
    "HiGHS for half a minute each on this machine, with all links and started from the better heuristic (GLPK, which "
    "cannot be given a start, keeps that plan until it has a better one). Our program's bound falls until a plan "
    "meets it. The published runs on 24 and 42 machines stop with bounds that are 20 to 60 times the value.",
)
def convergence(context: Context) -> pd.DataFrame:
    """One row an incumbent of Gurobi, as published; ours, last value and bound only: its seconds are measured.

    What the open solvers make of the paper's program in half a minute depends on the machine: it is measured too.
    """
    table = published_solver("solver_progress")
    order = list(dict.fromkeys(table["cluster"]))
    # The logs tell of each better plan; how the solve ended stands in the other table.
    table = pd.concat([table, published_solver()])
    table = pd.concat([table[table["cluster"] == cluster] for cluster in order])
    table = table[~table["variant"].isin(["not pruned", "no initial values"])].assign(solver="Gurobi (published)")
    rows = []
    for cluster, model in list(dict.fromkeys(zip(table["cluster"], table["model"], strict=True))):
        context.say(cluster)
        made = plan(Cluster.preset(cluster), Model.preset(model), time_limit_s=AMPLE_S, seed=context.seed)
        curves: dict[str, Sequence[Point]] = {"pattern program (ours)": made.progress}
        for solver, name in (("glpk", "GLPK"), ("highs", "HiGHS")):
            context.say(f"{cluster}, the paper's program with {name}")
            curves[name] = _paper_progress(cluster, model, solver, FAST_PAPER_S if context.fast else PAPER_S)
        context.measured[cluster] = {
            name: [[None if v is None else round(v, 3) for v in row] for row in rows] for name, rows in curves.items()
        }
        rows.append(
            {
                "cluster": cluster,
                "model": model,
                "solver": "pattern program (ours)",
                "flow_tokens_per_s": made.flow_tokens_per_s,
                "bound_tokens_per_s": made.bound_tokens_per_s,
            }
        )
    columns = ["cluster", "model", "solver", "seconds", "flow_tokens_per_s", "bound_tokens_per_s"]
    return pd.concat([table, pd.DataFrame(rows)])[columns]


def _paper_progress(cluster: str, model: str, solver: str, seconds: float) -> list[Point]:
    """Value and bound in tokens/s over a solve of the paper's program with all links, bounds as the solver finds them.

    Both start from the plan of the better heuristic, as in the paper; GLPK, which cannot be given one, keeps it until
    it has a better plan.
    """
    problem = Problem.of(Cluster.preset(cluster), Model.preset(model))
    program = paper_milp.build(problem)
    starts = [plan(problem.cluster, problem.model, method=name) for name in ("petals", "swarm")]
    best = max(starts, key=lambda made: made.flow_tokens_per_s)
    paper_milp.set_initial_values(program, best.placement, problem.max_flow(best.placement))
    began = time.perf_counter()
    points: list[Point] = [(0.0, best.flow_tokens_per_s, None)]

    def report(value: float | None, bound: float | None) -> None:
        _, last, least = points[-1]
        point = (max(last or 0.0, value or 0.0), bound if least is None else min(least, bound or least))
        if point != (last, least):
            points.append((time.perf_counter() - began, *point))

    settings = SolverSettings(solver, time_limit_s=seconds, mip_gap=1e-4)
    found = solve_model(program, settings, warm_start=solver == "highs", progress=report)
    report(found.value, found.bound)
    return [*points, (time.perf_counter() - began, *points[-1][1:])]
