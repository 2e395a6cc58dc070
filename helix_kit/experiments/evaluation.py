"""The evaluation (paper sections 6.3 to 6.7): what was published, our simulator on the published plans, our plans.

Every table has one row a metric: section, setup, model, mode, method, source, metric, value. Sources are
``published simulation``, ``published prototype`` and ``ours`` (our simulator). The methods ``own flow`` and
``own served`` are plans of our own, which nobody has published.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pandas as pd

from helix_kit.cluster import Cluster
from helix_kit.experiments import published
from helix_kit.experiments.own import OWN_PLANS, SETTINGS, own_plans, requests_of, serve
from helix_kit.experiments.pictures.evaluation import draw_deep_dive, draw_evaluation
from helix_kit.experiments.registry import Context, experiment
from helix_kit.model import Model
from helix_kit.report import Run

COLUMNS = ("section", "setup", "model", "mode", "method", "source", "metric", "value")
QUANTILES = ("p5", "p25", "p50", "p75", "p95")


def metrics_of(run: Run) -> dict[str, float]:
    """A run by the published names of metrics."""
    summary = run.summary()
    found = {"decode_tokens_per_s": summary["decode_tokens_per_s"]}
    for phase in ("prompt", "decode"):
        latency = summary[f"{phase}_latency_s"]
        for name in ("avg", *QUANTILES):
            if latency[name] is not None:
                found[f"{phase}_latency_{name}_s"] = latency[name]
    return found


def compare_with_published(runs: Iterable[published.PublishedRun], context: Context) -> list[dict[str, Any]]:
    """Rows of the published values and of our simulator's, on the published plans, links, loads and streams."""
    rows = []
    for run in runs:
        context.say(f"{run.setup} {run.model} {run.method} {run.mode}")
        values = {
            "published simulation": run.published("simulation"),
            "published prototype": run.published("prototype"),
        }
        values["ours"] = metrics_of(run.run(seed=context.seed))
        rows += _rows(run, run.method, values)
    return rows


def _rows(run: published.PublishedRun, method: str, values: dict[str, dict[str, float]]) -> list[dict[str, Any]]:
    fixed = {"section": run.section, "setup": run.setup, "model": run.model, "mode": run.mode, "method": method}
    return [
        {**fixed, "source": source, "metric": metric, "value": value}
        for source, found in values.items()
        for metric, value in found.items()
    ]


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
            ran = serve(made, run.mode, requests, seed=context.seed)
            rows += _rows(run, f"own {objective}", {"ours": metrics_of(ran)})
    return rows


def _evaluate(section: str, context: Context) -> pd.DataFrame:
    chosen = [run for run in published.runs() if run.section == section]
    rows = compare_with_published(chosen, context) + own_rows(chosen, context)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _deep_dive(section: str, context: Context) -> pd.DataFrame:
    """The published simulation is of three regions, the prototype ran in one cluster: ours beside each."""
    rows = []
    for run in published.runs():
        if run.section != section:
            continue
        context.say(f"{run.method}, three regions")
        far = replace(run, setup=THREE_REGIONS)
        simulated = {
            "published simulation": run.published("simulation"),
            "ours": metrics_of(run.run(seed=context.seed)),
        }
        rows += _rows(far, run.method, simulated)
        context.say(f"{run.method}, one cluster")
        near = {"published prototype": run.published("prototype"), "ours": metrics_of(_in_one_cluster(run, context))}
        rows += _rows(replace(run, setup=ONE_CLUSTER), run.method, near)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _in_one_cluster(run: published.PublishedRun, context: Context) -> Run:
    """The same comparison on single24: the placements of section 6.3, and Petals' by our own heuristic."""
    folder = "single_cluster/llama70b"
    if run.setup == "scheduling":
        parts = tuple({**part, "layout": f"{folder}/ilp"} for part in run.parts)
        return replace(run, parts=parts).run(seed=context.seed)
    if run.method == "petals":
        from helix_kit.placement.planner import plan

        single = SETTINGS["single", run.model]
        made = plan(Cluster.preset(single.cluster), Model.preset(run.model), method="petals", seed=0, flow_split="any")
        return serve(made, run.mode, requests_of(run.parts), seed=context.seed)
    layout = {"helix": "ilp", "swarm": "swarm"}[run.method]
    parts = tuple({**part, "layout": f"{folder}/{layout}"} for part in run.parts)
    return replace(run, parts=parts).run(seed=context.seed)


THREE_REGIONS, ONE_CLUSTER = "three regions (geo24)", "one cluster (single24)"

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
    minutes=0.5,
    text="LLaMA-2 70B offline, all placements under Helix's scheduler. The published simulation is of three regions; "
    "the prototype's values are, by their size, of the single cluster. Ours stands beside each.",
)
def placement_deep_dive(context: Context) -> pd.DataFrame:
    """The three placements, offline, on geo24 and single24."""
    return _deep_dive("6.6", context)


@experiment(
    "scheduling-deep-dive",
    title="Schedulers of Helix, Swarm, random and shortest queue on one placement",
    paper="Section 6.7",
    draw=draw_deep_dive,
    minutes=0.5,
    text="LLaMA-2 70B offline on Helix's placement, 180 requests in flight for all but Helix. Right: how long prompts "
    "take, which is where congestion shows.",
)
def scheduling_deep_dive(context: Context) -> pd.DataFrame:
    """The four schedulers on Helix's placements of geo24 and single24, offline."""
    return _deep_dive("6.7", context)
