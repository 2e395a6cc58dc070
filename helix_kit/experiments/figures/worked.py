"""Figures 1 and 2: small clusters whose numbers can be checked by hand.

Figure 1: three ways to split a model over a fast machine in one region and four slower ones in another, behind a slow
link. Figure 2: the flow network of three machines.
"""

from __future__ import annotations

import pandas as pd

from helix_kit.cluster import Cluster
from helix_kit.experiments.figures.common.limits import COUNTED_S
from helix_kit.experiments.figures.pictures.worked import draw_flow_network, draw_splits
from helix_kit.experiments.machinery.registry import Context, experiment
from helix_kit.flow import Placement
from helix_kit.model import Model
from helix_kit.placement.problem import Problem

LAYERS = 24
"""The first layers of LLaMA 30B, as many as five small machines can hold."""
SLOW_LINK_GBPS = 0.1


def two_regions() -> Cluster:
    """One A100 beside the coordinator; one L4 and three T4 behind 0.1 Gbit/s."""
    machines = (("A100-40G", "near", 1), ("L4", "far", 1), ("T4", "far", 3))
    return Cluster.model_validate(
        {
            "name": "two-regions",
            "throughput": "published",
            "coordinator": {"region": "near"},
            "nodes": [{"gpu": gpu, "region": region, "count": count} for gpu, region, count in machines],
            "network": {
                "within_region": {"bandwidth_gbps": 8, "latency_ms": 1},
                "between_regions": {"bandwidth_gbps": SLOW_LINK_GBPS, "latency_ms": 50},
            },
        }
    )


def small_model() -> Model:
    """A model of 24 of LLaMA 30B's layers."""
    return Model.preset("llama-30b").model_copy(update={"num_layers": LAYERS})


def chain(problem: Problem, shares: dict[str, float]) -> dict[str, tuple[int, int]]:
    """One pipeline of all machines in cluster order, layers in proportion to `shares`."""
    total, placed, placement = sum(shares.values()), 0.0, {}
    for name, share in shares.items():
        start = round(placed * problem.num_layers / total)
        placed += share
        end = round(placed * problem.num_layers / total)
        if end > start:
            placement[name] = (start, end)
    return placement


def splits(problem: Problem, seed: int = 0) -> dict[str, Placement]:
    """Figure 1's three ways to split the layers: equal shares, shares by speed, and the plan by max flow."""
    from helix_kit.placement.planner import plan_problem

    names = [n.name for n in problem.cluster.nodes]
    speed = {n: problem.max_layers(n) * problem.throughput(n, problem.max_layers(n)) for n in names}
    best = plan_problem(problem, time_limit_s=COUNTED_S, deterministic=True, seed=seed)
    return {
        "uniform": chain(problem, dict.fromkeys(names, 1.0)),
        "balanced": chain(problem, speed),
        "network-aware": best.placement,
    }


def three_machines() -> tuple[Problem, dict[str, tuple[int, int]]]:
    """Figure 2's flow network: an A100 and two T4. The second T4 also holds a layer of the A100."""
    cluster = Cluster.model_validate(
        {
            "name": "three",
            "throughput": "published",
            "nodes": [{"gpu": "A100-40G", "count": 1}, {"gpu": "T4", "count": 2}],
            "network": {"within_region": {"bandwidth_gbps": 0.08, "latency_ms": 1}},
        }
    )
    problem = Problem.of(cluster, Model.preset("llama-30b").model_copy(update={"num_layers": 16}))
    return problem, {"A100-40G-0": (0, 10), "T4-0": (10, 16), "T4-1": (9, 16)}


@experiment(
    "worked-example",
    title="Three ways to split a model over a fast machine here and slower ones behind a slow link",
    paper="Figure 1",
    draw=draw_splits,
    data=("clusters", "models", "profiles", "gpus.csv", "gpu_links.csv"),
    text="Equal shares overload the slow machines. With shares by speed the slow link limits the flow, because all "
    "requests cross it to a single machine. The plan by max flow sends requests over two links to two machines side "
    "by side.",
)
def worked_example(context: Context) -> pd.DataFrame:
    """One row for each machine and split: layers [start, end), flow, capacity, and the split's max flow."""
    problem = Problem.of(two_regions(), small_model())
    rows = []
    for split, placement in splits(problem, context.seed).items():
        flow = problem.max_flow(placement, split="balanced")
        for name, (start, end) in placement.items():
            limits = [a for a, b in flow.min_cut if a == b]
            rows.append(
                {
                    "split": split,
                    "max_flow_tokens_per_s": flow.tokens_per_s,
                    "node": name,
                    "region": problem.cluster.region_of(name),
                    "start": start,
                    "end": end,
                    "flow_tokens_per_s": flow.through(name),
                    "capacity_tokens_per_s": flow.capacities[name, name],
                    "in_min_cut": name in limits,
                    "link_in_min_cut": any(a != b for a, b in flow.min_cut),
                }
            )
    return pd.DataFrame(rows)


@experiment(
    "flow-network",
    title="The flow network of three machines",
    paper="Figure 2",
    draw=draw_flow_network,
    data=("clusters", "models", "profiles", "gpus.csv", "gpu_links.csv"),
    text="Each machine is an edge whose capacity is the tokens/s that it serves with the layers that it holds. Each "
    "usable link is an edge whose capacity is its bandwidth. T4-1 and the A100 both hold one layer; requests from the "
    "A100 skip it on T4-1 (partial inference).",
)
def flow_network(context: Context) -> pd.DataFrame:
    """One row for each edge: source, target, flow and capacity in tokens/s, whether it is in the min cut."""
    del context
    problem, placement = three_machines()
    flow = problem.max_flow(placement)
    return pd.DataFrame(
        {
            "source": source,
            "target": target,
            "start": placement.get(source, (0, 0))[0] if source == target else None,
            "end": placement.get(source, (0, 0))[1] if source == target else None,
            "flow_tokens_per_s": flow.through(source) if source == target else flow.edges.get((source, target), 0.0),
            "capacity_tokens_per_s": capacity,
            "in_min_cut": (source, target) in flow.min_cut,
        }
        for (source, target), capacity in flow.capacities.items()
    )
