"""Beyond the paper: planning for many machines, plans under wrong profiles, modern models and machines."""

from __future__ import annotations

from typing import Any

import pandas as pd

from helix_kit.cluster import Cluster
from helix_kit.experiments.figures.common.limits import COUNTED_S
from helix_kit.experiments.figures.common.rows import flow_fields, method_rows
from helix_kit.experiments.figures.common.settings import OWN_PLANS, SETTINGS, load_own_plans
from helix_kit.experiments.figures.common.synthetic import synthetic_cluster
from helix_kit.experiments.figures.pictures.beyond import draw_modern, draw_robustness, draw_scaling
from helix_kit.experiments.machinery.registry import Context, experiment
from helix_kit.model import Model
from helix_kit.placement.planner import plan_problem
from helix_kit.placement.problem import Problem

SIZES, FAST_SIZES = (24, 50, 100, 200, 500, 1000), (24, 100)
"""Numbers of machines."""


@experiment(
    "scaling",
    title="Planning at scale: 24 to 1,000 machines of seven kinds",
    paper="Beyond the paper",
    draw=draw_scaling,
    minutes=2.5,
    measures=("nodes", "seconds"),
    data=("models", "profiles", "gpus.csv", "gpu_links.csv"),
    text="LLaMA-2 70B in one region, pattern program with HiGHS. Left: seconds until the plan, its exact flow and its "
    "bound are known. Right: the remaining gap to the proven bound.",
)
def scaling(context: Context) -> pd.DataFrame:
    """One row for each cluster: nodes, flow, bound and gap. The seconds are measured."""
    rows = []
    for nodes in FAST_SIZES if context.fast else SIZES:
        context.say(f"{nodes} nodes")
        problem = Problem.of(synthetic_cluster(nodes, seed=context.seed), Model.preset("llama2-70b"))
        plan = plan_problem(problem, time_limit_s=COUNTED_S, deterministic=True, seed=context.seed)
        context.measured[str(nodes)] = round(plan.seconds, 2)
        rows.append({"nodes": nodes, **flow_fields(plan)})
    return pd.DataFrame(rows)


@experiment(
    "robustness",
    title="Plans under wrong profiles",
    paper="Beyond the paper",
    draw=draw_robustness,
    needs=(OWN_PLANS,),
    minutes=1.0,
    data=("clusters", "models", "profiles", "gpus.csv", "gpu_links.csv"),
    text="In random worlds each kind of machine is up to 20 % faster or slower than the profiles from which the plan "
    "was made. Bars: flow as planned. Circles: mean over the worlds. Lines: down to the worst 5 % and the worst world.",
)
def robustness(context: Context) -> pd.DataFrame:
    """One row for each cluster and method: flow as planned, and its mean, 5 % and minimum over the worlds."""
    from helix_kit.analysis import robustness as try_worlds

    tables = []
    for (setup, model), setting in SETTINGS.items():
        if model != "llama2-70b":
            continue
        context.say(setup)
        plan = load_own_plans(setting, context, ("flow",))["flow"]
        table = try_worlds(plan, error=0.2, samples=10 if context.fast else 40, seed=context.seed)
        tables.append(table.drop(columns="beaten_by_plan_percent").assign(cluster=setting.cluster))
    return pd.concat(tables, ignore_index=True)


MODERN: dict[str, list[dict[str, Any]]] = {
    "2 H100, 4 A100-80G": [{"gpu": "H100-80G", "count": 2}, {"gpu": "A100-80G", "count": 4}],
    "1 H100, 4 L40S, 8 L4": [
        {"gpu": "H100-80G", "count": 1},
        {"gpu": "L40S", "count": 4},
        {"gpu": "L4", "count": 8},
    ],
    "4 A100-40G, 8 L4": [{"gpu": "A100-40G", "count": 4}, {"gpu": "L4", "count": 8}],
}
MODERN_METHODS = tuple(
    (name, {"method": name, "time_limit_s": COUNTED_S, "deterministic": True})
    for name in ("pattern", "swarm", "petals", "separate")
)


@experiment(
    "modern-models",
    title="Modern models on modern machines (estimates)",
    paper="Beyond the paper",
    draw=draw_modern,
    minutes=0.5,
    data=("models", "profiles", "gpus.csv", "gpu_links.csv"),
    text="Llama-3.1-70B and Qwen3-32B on mixes of H100, A100, L40S and L4, with 10 Gbit/s between machines. "
    "**Estimates**: the profiles are a roofline of datasheet figures; nothing here has been measured.",
)
def modern_models(context: Context) -> pd.DataFrame:
    """One row for each mix, model and method that has a plan: flow and bound in tokens/s, and gap."""
    rows: list[dict[str, Any]] = []
    for mix, nodes in MODERN.items():
        cluster = Cluster.model_validate(
            {"name": mix, "nodes": nodes, "network": {"within_region": {"bandwidth_gbps": 10, "latency_ms": 1}}}
        )
        for model in ("llama3.1-70b", "qwen3-32b"):
            keys = {"mix": mix, "model": model}
            rows += [row for row, _ in method_rows(keys, cluster, Model.preset(model), MODERN_METHODS, context)]
    return pd.DataFrame(rows)
