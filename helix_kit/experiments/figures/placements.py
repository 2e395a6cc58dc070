"""Figure 4 and the placement pictures of section 6.6, and the catalogue of machines."""

from __future__ import annotations

from typing import Any

import pandas as pd

from helix_kit.catalogue import EMULATED_PREFIX, gpus
from helix_kit.experiments.figures.common.published import layout_plan, published_run
from helix_kit.experiments.figures.common.settings import DATA
from helix_kit.experiments.figures.pictures.placements import draw_catalogue, draw_placements, draw_topology
from helix_kit.experiments.machinery.registry import Context, experiment
from helix_kit.flow import Pipeline
from helix_kit.placement.plan import Plan

LAYOUTS = {"Helix": "ilp", "Swarm": "swarm", "Petals": "petals"}


def figure_4_plan() -> Plan:
    """The published plan of LLaMA-2 70B for three regions (geo24)."""
    return published_run("geo", "llama2-70b", "helix", "offline").plans()[0]


def two_requests(plan: Plan) -> dict[str, Pipeline]:
    """Pipelines of two requests: the one with the largest flow, and among those that share the fewest machines with it
    again the one with the largest flow."""
    first = plan.pipelines[0][0]
    used = {stage.node for stage in first}
    second = min(plan.pipelines, key=lambda p: (len(used & {s.node for s in p[0]}), -p[1]))[0]
    return {"request 1": first, "request 2": second}


@experiment(
    "topology",
    title="A plan with its flow, and the pipelines of two requests",
    paper="Figure 4",
    draw=draw_topology,
    data=DATA,
    text="The published plan of LLaMA-2 70B for three regions (geo24). x is the layer; a bar shows the layers that a "
    "machine holds, filled to the share of its capacity in use. Ribbons are as wide as their flow. The two coloured "
    "lines are the pipelines of two requests.",
)
def topology(context: Context) -> pd.DataFrame:
    """Rows of three kinds: nodes (start, end), links (source, target, tokens/s), and the stages of two requests."""
    del context
    plan = figure_4_plan()
    rows: list[dict[str, Any]] = [
        {"what": "node", "source": name, "start": start, "end": end} for name, (start, end) in plan.placement.items()
    ]
    rows += [{"what": "link", "source": a, "target": b, "tokens_per_s": f} for (a, b), f in plan.flow_edges.items()]
    for name, pipeline in two_requests(plan).items():
        rows += [{"what": name, "source": s.node, "start": s.start, "end": s.end} for s in pipeline]
    return pd.DataFrame(rows, columns=["what", "source", "target", "start", "end", "tokens_per_s"])


@experiment(
    "placement-pictures",
    title="Where Helix, Swarm and Petals put the layers",
    paper="Section 6.6",
    draw=draw_placements,
    data=DATA,
    text="LLaMA-2 70B over three regions, as published. Bars are filled to the share of the machine's capacity that "
    "the max flow uses; a pale bar holds layers that no request uses.",
)
def placement_pictures(context: Context) -> pd.DataFrame:
    """One row for each machine and method: layers, flow through it and capacity in tokens/s, the plan's max flow."""
    del context
    rows = []
    for method, layout in LAYOUTS.items():
        plan = layout_plan(f"model_placement/distributed/{layout}", "llama2-70b")
        for name, (start, end) in plan.placement.items():
            rows.append(
                {
                    "method": method,
                    "max_flow_tokens_per_s": plan.flow_tokens_per_s,
                    "node": name,
                    "kind": plan.cluster.node(name).kind,
                    "region": plan.cluster.region_of(name),
                    "start": start,
                    "end": end,
                    "flow_tokens_per_s": sum(f for (_, b), f in plan.flow_edges.items() if b == name),
                    "capacity_tokens_per_s": plan.node_throughput_tokens_per_s[name],
                }
            )
    return pd.DataFrame(rows)


@experiment(
    "gpu-catalogue",
    title="The catalogue of GPUs",
    paper="Table of GPUs",
    draw=draw_catalogue,
    data=("gpus.csv", "gpu_prices.csv"),
    text="Datasheet figures and rents; the source of each row is in `data/gpus.csv` and `data/gpu_prices.csv`.",
)
def gpu_catalogue(context: Context) -> pd.DataFrame:
    """One row for each GPU: memory, bandwidth, FP16 compute, list price."""
    del context
    named = ("memory_gb", "memory_bandwidth_gb_per_s", "fp16_tflops", "price_usd_per_hour", "tdp_w")
    rows = [
        {"gpu": gpu.name} | {name: getattr(gpu, name) for name in named}
        for gpu in gpus().values()
        if not gpu.name.startswith(EMULATED_PREFIX)
    ]
    return pd.DataFrame(rows)
