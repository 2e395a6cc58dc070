"""The evaluation (paper sections 6.3 to 6.7): what was published, our simulator on the published plans, our plans.

Every table has one row a metric: section, setup, model, mode, method, source, metric, value. Sources are
``published simulation``, ``published prototype`` and ``ours`` (our simulator). The methods ``own flow`` and
``own served`` are plans of our own, which nobody has published.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import pandas as pd

from helix_kit.cluster import Cluster
from helix_kit.experiments.figures.common import published
from helix_kit.experiments.figures.common.settings import OWN_PLANS, SETTINGS, own_plans, requests_of, serving
from helix_kit.experiments.figures.pictures.congestion import draw_congestion
from helix_kit.experiments.figures.pictures.evaluation import draw_deep_dive, draw_evaluation
from helix_kit.experiments.machinery.registry import Context, experiment
from helix_kit.experiments.figures.common.rows import COLUMNS, OURS, OWN_PLAN, PROTOTYPE, SIMULATION, metric_rows
from helix_kit.experiments.figures.common.simulated import Outcome, simulated
from helix_kit.model import Model


def compare_with_published(runs: Iterable[published.PublishedRun], context: Context) -> list[dict[str, Any]]:
    """Rows of the published values and of our simulator's, on the published plans, links, loads and streams."""
    rows = []
    for run in runs:
        context.say(f"{run.setup} {run.model} {run.method} {run.mode}")
        values = {SIMULATION: run.published("simulation"), PROTOTYPE: run.published("prototype")}
        values[OURS] = simulated(run.calls(seed=context.seed), context).metrics
        rows += metric_rows(run, run.method, values)
    return rows


def own_rows(runs: Iterable[published.PublishedRun], context: Context) -> list[dict[str, Any]]:
    """Rows of our plans at the load that the paper gives Helix, for each of the published Helix runs in `runs`."""
    rows = []
    for run in runs:
        setting = SETTINGS.get((run.setup, run.model))
        if run.method != "helix" or setting is None:
            continue
        for objective, made in own_plans(setting, context.folder).items():
            context.say(f"{run.setup} {run.model} own plan for {objective}, {run.mode}")
            requests = requests_of(run.parts if run.mode == "online" else run.parts[:1])
            ran = simulated([serving(made, run.mode, requests, seed=context.seed)], context)
            rows += metric_rows(run, f"own {objective}", {OURS: ran.metrics})
    return rows


def _evaluate(section: str, context: Context) -> pd.DataFrame:
    chosen = [run for run in published.runs() if run.section == section]
    rows = compare_with_published(chosen, context) + own_rows(chosen, context)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def deep_dive(section: str, context: Context) -> Iterator[tuple[published.PublishedRun, str, Outcome]]:
    """Each run of a section, in three regions (as simulated by the authors) and in one cluster (as they ran it)."""
    for run in published.runs():
        if run.section == section:
            for place, calls in ((THREE_REGIONS, run.calls(seed=context.seed)), (ONE_CLUSTER, _near(run, context))):
                context.say(f"{run.method}, {place}")
                yield run, place, simulated(calls, context)


def _deep_dive(section: str, context: Context) -> pd.DataFrame:
    rows = []
    own = {place: own_plans(SETTINGS[setup, "llama2-70b"], context.folder) for place, setup in PLACES.items()}
    for run, place, outcome in deep_dive(section, context):
        if place == THREE_REGIONS:
            values = {SIMULATION: run.published("simulation"), OURS: outcome.metrics}
        else:
            values = {PROTOTYPE: run.published("prototype"), OURS: outcome.metrics}
        if section == "6.7":
            context.say(f"{run.method} on our plan, {place}")
            call = {**run.calls(seed=context.seed)[0], "plan": own[place]["served"], "kv_capacity": None, "links": None}
            values[OWN_PLAN] = simulated([call], context).metrics
        rows += metric_rows(replace(run, setup=place), run.method, values)
    if section == "6.6":
        helix = published.find("geo", "llama2-70b", "helix", "offline")
        for place, plans in own.items():
            for objective, made in plans.items():
                ran = simulated([serving(made, "offline", requests_of(helix.parts), seed=context.seed)], context)
                rows += metric_rows(
                    replace(helix, section=section, setup=place), f"own {objective}", {OURS: ran.metrics}
                )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _near(run: published.PublishedRun, context: Context) -> list[dict[str, Any]]:
    """The same comparison on single24: the placements of section 6.3, and Petals' by our own heuristic."""
    folder = "single_cluster/llama70b"
    if run.setup == "scheduling":
        parts = tuple({**part, "layout": f"{folder}/ilp"} for part in run.parts)
        return replace(run, parts=parts).calls(seed=context.seed)
    if run.method == "petals":
        from helix_kit.planning import plan

        single = SETTINGS["single", run.model]
        made = plan(Cluster.preset(single.cluster), Model.preset(run.model), method="petals", seed=0, flow_split="any")
        return [serving(made, run.mode, requests_of(run.parts), seed=context.seed)]
    layout = {"helix": "ilp", "swarm": "swarm"}[run.method]
    parts = tuple({**part, "layout": f"{folder}/{layout}"} for part in run.parts)
    return replace(run, parts=parts).calls(seed=context.seed)


THREE_REGIONS, ONE_CLUSTER = "three regions (geo24)", "one cluster (single24)"
PLACES = {THREE_REGIONS: "geo", ONE_CLUSTER: "single"}

SAME_LOAD = (
    "Bars: decode throughput; boxes: latency of requests that come over time (5, 25, 50, 75 and 95 %). Each published "
    "method has the load that the paper chose for it; our own plans have Helix's."
)


@experiment(
    "single-cluster",
    title="Single cluster of 24 nodes: Helix, Swarm, separate pipelines, and our plans",
    paper="Section 6.3",
    draw=draw_evaluation,
    needs=(OWN_PLANS,),
    minutes=3.0,
    text=SAME_LOAD,
)
def single_cluster(context: Context) -> pd.DataFrame:
    """LLaMA 30B and LLaMA-2 70B, offline and online, on single24."""
    return _evaluate("6.3", context)


@experiment(
    "geo-distributed",
    title="Three regions, 24 nodes: Helix, Swarm, separate pipelines, and our plans",
    paper="Section 6.4",
    draw=draw_evaluation,
    needs=(OWN_PLANS,),
    minutes=4.0,
    text=SAME_LOAD,
)
def geo_distributed(context: Context) -> pd.DataFrame:
    """LLaMA 30B and LLaMA-2 70B, offline and online, on geo24."""
    return _evaluate("6.4", context)


@experiment(
    "high-heterogeneity",
    title="42 nodes of seven kinds: Helix, Swarm, separate pipelines with and without mixed ones, and our plans",
    paper="Section 6.5",
    draw=draw_evaluation,
    needs=(OWN_PLANS,),
    minutes=5.0,
    text=SAME_LOAD,
)
def high_heterogeneity(context: Context) -> pd.DataFrame:
    """LLaMA-2 70B, offline and online, on hetero42."""
    return _evaluate("6.5", context)


@experiment(
    "placement-deep-dive",
    title="Placements of Helix, Petals and Swarm under one scheduler",
    paper="Section 6.6",
    draw=draw_deep_dive,
    needs=(OWN_PLANS,),
    minutes=0.5,
    text="LLaMA-2 70B offline, all placements under Helix's scheduler. The published simulation is of three regions; "
    "the prototype's values are, by their size, of the single cluster. Ours stands beside each, and our own plans "
    "beside them.",
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
    text="LLaMA-2 70B offline on Helix's placement, 180 requests in flight for all but Helix. Beside them the same "
    "schedulers on our own plan. Right: how long prompts take, which is where congestion shows.",
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
    text="The same runs, machine by machine: the share of the time that it computes, and the share that it stands "
    "still with finished work waiting for a link (not drawn where no machine ever does). For each token served, "
    "machines compute least with Helix's scheduler.",
)
def congestion(context: Context) -> pd.DataFrame:
    """One row a machine, setup and scheduler: shares of time busy, blocked and starved; KV use at most and on average.

    `kv_mean` and `kv_peak` are shares of the machine's KV capacity.
    """
    rows = []
    for run, place, outcome in deep_dive("6.7", context):
        for node, use in outcome.nodes.items():
            shares = {key: use[key] for key in ("busy", "blocked", "starved")}
            kv = {f"kv_{key}": use[f"kv_{key}"] / use["kv_capacity"] for key in ("mean", "peak")}
            rows.append({"setup": place, "method": run.method, "node": node, **shares, **kv})
    return pd.DataFrame(rows)
