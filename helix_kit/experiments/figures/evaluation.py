"""The evaluation (paper sections 6.3 to 6.7): published results, our simulator on the published plans, and our plans.

Every table has one row for each metric: section, setup, model, mode, method, source, metric, value. Sources are
``published simulation``, ``published prototype`` and ``ours`` (our simulator). The methods ``own flow`` and
``own served`` are our own plans, for which nothing is published.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from helix_kit.cluster import Cluster
from helix_kit.experiments.figures.common.published import PublishedRun, published_run, published_runs
from helix_kit.experiments.figures.common.rows import (
    COLUMNS,
    OURS,
    OWN_PLAN,
    PROTOTYPE,
    SIMULATION,
    Case,
    metric_rows,
)
from helix_kit.experiments.figures.common.settings import (
    OWN_PLANS,
    SETTINGS,
    helix_simulation,
    joined_requests,
    load_own_plans,
)
from helix_kit.experiments.figures.common.simulated import Outcome, simulated
from helix_kit.experiments.figures.common.simulation import Mode, Simulation
from helix_kit.experiments.figures.pictures.congestion import draw_congestion
from helix_kit.experiments.figures.pictures.evaluation import draw_deep_dive, draw_evaluation
from helix_kit.experiments.machinery.registry import Context, experiment
from helix_kit.model import Model

if TYPE_CHECKING:
    from helix_kit.placement.plan import Plan
    from helix_kit.workload import Workload

THREE_REGIONS, ONE_CLUSTER = "three regions (geo24)", "one cluster (single24)"
SETUPS = {THREE_REGIONS: "geo", ONE_CLUSTER: "single"}
"""The clusters of the deep dives, and their names in the published results."""
DEEP_DIVE_MODEL = "llama2-70b"


def published_rows(runs: Iterable[PublishedRun], context: Context) -> list[dict[str, Any]]:
    """Rows of the published values and of our simulator's, on the published plans, links, loads and requests."""
    rows = []
    for run in runs:
        context.say(f"{run.setup} {run.model} {run.method} {run.mode}")
        values = {SIMULATION: run.values("simulation"), PROTOTYPE: run.values("prototype")}
        values[OURS] = simulated(run.simulations(seed=context.seed), context).metrics
        rows += metric_rows(run.case, run.method, values)
    return rows


def own_rows(runs: Iterable[PublishedRun], context: Context) -> list[dict[str, Any]]:
    """Rows of our plans at the load that the paper gives Helix, for each of the published Helix runs in `runs`."""
    rows = []
    for run in runs:
        setting = SETTINGS.get((run.setup, run.model))
        if run.method == "helix" and setting is not None:
            requests = joined_requests(run.subclusters if run.mode == "online" else run.subclusters[:1])
            plans = load_own_plans(setting, context)
            rows += _own_plan_rows(run.case, run.mode, plans, requests, context)
    return rows


def _own_plan_rows(
    case: Case, mode: Mode, plans: Mapping[str, Plan], requests: Workload, context: Context
) -> list[dict[str, Any]]:
    rows = []
    for objective, plan in plans.items():
        context.say(f"{case.setup} {case.model} own plan for {objective}, {mode}")
        outcome = simulated([helix_simulation(plan, mode, requests, seed=context.seed)], context)
        rows += metric_rows(case, f"own {objective}", {OURS: outcome.metrics})
    return rows


def deep_dive(section: str, context: Context) -> Iterator[tuple[PublishedRun, str, Outcome]]:
    """Each run of a section in three regions (as the authors simulated it) and in one cluster (as they ran it)."""
    for run in published_runs():
        if run.section == section:
            in_regions = run.simulations(seed=context.seed)
            for place, simulations in ((THREE_REGIONS, in_regions), (ONE_CLUSTER, _on_single24(run, context))):
                context.say(f"{run.method}, {place}")
                yield run, place, simulated(simulations, context)


def _deep_dive(section: str, context: Context) -> pd.DataFrame:
    rows = []
    own = {p: load_own_plans(SETTINGS[setup, DEEP_DIVE_MODEL], context) for p, setup in SETUPS.items()}
    for run, place, outcome in deep_dive(section, context):
        if place == THREE_REGIONS:
            values = {SIMULATION: run.values("simulation"), OURS: outcome.metrics}
        else:
            values = {PROTOTYPE: run.values("prototype"), OURS: outcome.metrics}
        if section == "6.7":
            context.say(f"{run.method} on our plan, {place}")
            # Our plan serves more than the streams of two schedulers hold, which are only as long as their own runs.
            long = replace(run, subclusters=tuple(replace(one, stream="offline") for one in run.subclusters))
            published = long.simulations(seed=context.seed)[0]
            on_own_plan = replace(published, plan=own[place]["served"], kv_capacity=None, links=None)
            values[OWN_PLAN] = simulated([on_own_plan], context).metrics
        rows += metric_rows(run.case._replace(setup=place), run.method, values)
    if section == "6.6":
        helix = published_run("geo", DEEP_DIVE_MODEL, "helix", "offline")
        requests = joined_requests(helix.subclusters)
        for place, plans in own.items():
            case = helix.case._replace(section=section, setup=place)
            rows += _own_plan_rows(case, helix.mode, plans, requests, context)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _on_single24(run: PublishedRun, context: Context) -> list[Simulation]:
    """A deep dive's run on single24: with the placements of section 6.3, and Petals' by our own heuristic."""
    folder = "single_cluster/llama70b"
    if run.setup == "placement" and run.method == "petals":
        from helix_kit.placement.planner import plan_problem
        from helix_kit.placement.problem import Problem

        problem = Problem.of(Cluster.preset(SETTINGS["single", run.model].cluster), Model.preset(run.model))
        plan = plan_problem(problem, method="petals", seed=0, flow_split="any")
        return [helix_simulation(plan, run.mode, joined_requests(run.subclusters), seed=context.seed)]
    layout = "ilp" if run.setup == "scheduling" else {"helix": "ilp", "swarm": "swarm"}[run.method]
    # Two schedulers have streams of their own, only as long as their runs on geo24: single24 would run out of requests.
    subclusters = tuple(replace(one, layout=f"{folder}/{layout}", stream="offline") for one in run.subclusters)
    return replace(run, subclusters=subclusters).simulations(seed=context.seed)


SAME_LOAD = (
    "Bars: decode throughput. Boxes: latency of requests that arrive over time (5, 25, 50, 75 and 95 %). Each "
    "published method has the load that the paper chose for it; our own plans have Helix's load."
)


def _register_evaluation(name: str, section: str, *, title: str, minutes: float) -> None:
    """Register the evaluation of a cluster: the runs of one section, offline and online, and our plans."""

    @experiment(
        name,
        title=title,
        paper=f"Section {section}",
        draw=draw_evaluation,
        needs=(OWN_PLANS,),
        minutes=minutes,
        text=SAME_LOAD,
    )
    def evaluate(context: Context) -> pd.DataFrame:
        runs = [run for run in published_runs() if run.section == section]
        return pd.DataFrame(published_rows(runs, context) + own_rows(runs, context), columns=list(COLUMNS))


_register_evaluation(
    "single-cluster",
    "6.3",
    title="Single cluster of 24 nodes: Helix, Swarm, separate pipelines, and our plans",
    minutes=3.0,
)
_register_evaluation(
    "geo-distributed",
    "6.4",
    title="Three regions, 24 nodes: Helix, Swarm, separate pipelines, and our plans",
    minutes=4.0,
)
_register_evaluation(
    "high-heterogeneity",
    "6.5",
    title="42 nodes of seven kinds: Helix, Swarm, separate pipelines with and without mixed ones, and our plans",
    minutes=5.0,
)


@experiment(
    "placement-deep-dive",
    title="Placements of Helix, Petals and Swarm under one scheduler",
    paper="Section 6.6",
    draw=draw_deep_dive,
    needs=(OWN_PLANS,),
    minutes=0.5,
    text="LLaMA-2 70B offline, all placements under Helix's scheduler. The published simulation is of three regions. "
    "The prototype's values are taken to be of the single cluster, because of their size. Our values stand beside "
    "each, and beside them those of our own plans.",
)
def placement_deep_dive(context: Context) -> pd.DataFrame:
    """The three placements, offline, on geo24 and single24."""
    return _deep_dive("6.6", context)


@experiment(
    "scheduling-deep-dive",
    title="Schedulers of Helix, Swarm, random and shortest queue on one placement",
    paper="Section 6.7",
    draw=draw_deep_dive,
    needs=(OWN_PLANS,),
    minutes=0.5,
    text="LLaMA-2 70B offline on Helix's placement, with 180 requests in flight for every scheduler but Helix's, and "
    "the same schedulers on our own plan. Right: prompt latency, in which congestion shows.",
)
def scheduling_deep_dive(context: Context) -> pd.DataFrame:
    """The four schedulers on Helix's placements of geo24 and single24, offline."""
    return _deep_dive("6.7", context)


@experiment(
    "congestion",
    title="Congestion by machine under four schedulers",
    paper="Section 6.7",
    draw=draw_congestion,
    minutes=0.1,
    text="The same runs, machine by machine: the share of the time that a machine computes, and the share that it "
    "waits because its links are full (not drawn where no machine ever waits). Machines compute least for each served "
    "token with Helix's scheduler.",
)
def congestion(context: Context) -> pd.DataFrame:
    """One row for each machine, setup and scheduler: shares of time busy, blocked and starved; KV cache in use.

    `kv_mean` and `kv_peak` are the mean and the maximum, as shares of the machine's KV capacity.
    """
    rows = []
    for run, place, outcome in deep_dive("6.7", context):
        for node, use in outcome.nodes.items():
            shares = {key: use[key] for key in ("busy", "blocked", "starved")}
            kv = {f"kv_{key}": use[f"kv_{key}"] / use["kv_capacity"] for key in ("mean", "peak")}
            rows.append({"setup": place, "method": run.method, "node": node, **shares, **kv})
    return pd.DataFrame(rows)
