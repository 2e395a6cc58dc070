"""Flow plans for the clusters that users have: random clusters of today's cards, against every baseline.

    python benchmarks/bench_users.py [--cases 24] [--seed 0] [--time-limit 30] [-o FILE]

Each case is drawn with a seed: 2 to 4 kinds of cards from T4 to H200 and RTX, 1 to 3 regions, links of 0.2 to
100 Gbit/s, and a model of 1B to 123B parameters that fits. The table says what the plan carries, what the best baseline
carries, the proven bound, and the seconds that the plan took of its time limit.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import statistics
import time
from pathlib import Path
from typing import NamedTuple

import helix_kit as hk
from helix_kit.errors import InfeasibleError
from helix_kit.placement.problem import Problem

CARDS = (
    "T4", "V100-16G", "L4", "A10G", "A100-40G", "A100-80G", "H100-80G", "H200-141G", "L40S", "RTX3090", "RTX4090",
)  # fmt: skip
MODELS = {
    # name: layers, hidden size, query heads, key-value heads, head size, MLP width, vocabulary
    "llama3.2-1b": (16, 2048, 32, 8, 64, 8192, 128256),
    "qwen3-4b": (36, 2560, 32, 8, 128, 9728, 151936),
    "qwen2.5-7b": (28, 3584, 28, 4, 128, 18944, 152064),
    "qwen3-14b": (40, 5120, 40, 8, 128, 17408, 151936),
    "qwen3-32b": (64, 5120, 64, 8, 128, 25600, 151936),
    "llama3.1-70b": (80, 8192, 64, 8, 128, 28672, 128256),
    "mistral-large-123b": (88, 12288, 96, 8, 128, 28672, 32768),
}
"""Sizes from the models' Hugging Face configs."""
BASELINES = ("swarm", "petals", "separate", "separate-plus", "proportional", "parallax")
REGIONS = ("lab", "home", "cloud")


class Case(NamedTuple):
    """A cluster and a model that fits it."""

    cluster: hk.Cluster
    model: hk.Model


def model_of(name: str) -> hk.Model:
    """The model of one of the rows of MODELS."""
    layers, hidden, heads, kv_heads, head_dim, width, vocabulary = MODELS[name]
    return hk.Model(
        name=name, num_layers=layers, hidden_size=hidden, num_heads=heads, num_kv_heads=kv_heads, head_dim=head_dim,
        intermediate_size=width, vocab_size=vocabulary,
    )  # fmt: skip


def draw_case(seed: int) -> Case:
    """A random cluster with a random model that fits; the same seed gives the same case."""
    rng = random.Random(seed)
    while True:
        regions = REGIONS[: rng.choice((1, 2, 3))]
        nodes = [
            {
                "gpu": card,
                "count": rng.randint(1, 8),
                "gpus_per_node": rng.choices((1, 2, 4), weights=(6, 1, 1))[0],
                "region": rng.choice(regions),
            }
            for card in rng.sample(CARDS, rng.randint(2, 4))
        ]
        used = sorted({node["region"] for node in nodes})
        network = {
            "within_region": {"bandwidth_gbps": round(10 ** rng.uniform(0, 2), 2), "latency_ms": 0.5},
            "between_regions": {"bandwidth_gbps": round(0.2 * 50 ** rng.random(), 2), "latency_ms": 30},
        }
        name = f"users-{seed}"
        cluster = hk.Cluster.model_validate(
            {"name": name, "coordinator": {"region": used[0]}, "nodes": nodes, "network": network}
        )
        model = model_of(rng.choice(list(MODELS)))
        try:
            Problem.of(cluster, model)
            if best_baseline(Case(cluster, model), ("petals",))[1] > 0:
                return Case(cluster, model)
        except InfeasibleError:
            continue


def best_baseline(case: Case, methods: tuple[str, ...] = BASELINES) -> tuple[str, float]:
    """The baseline that carries the most, and its tokens/s. Plans that overfill a node's memory do not count."""
    problem, best = Problem.of(*case), ("none", 0.0)
    for method in methods:
        try:
            plan = hk.plan(*case, method=method, prove=False)
        except InfeasibleError:
            continue
        if problem.holds(plan.placement) and plan.flow_tokens_per_s > best[1]:
            best = method, plan.flow_tokens_per_s
    return best


def kinds_of(cluster: hk.Cluster) -> str:
    """The machines in short, such as ``4 A100-40G``."""
    return ", ".join(f"{count} {kind}" for kind, count in cluster.kind_counts.items())


class Row(NamedTuple):
    """One line of the table."""

    text: str
    ratio: float
    gap: float
    over_s: float
    regions: int


def row(case: Case, time_limit_s: float) -> Row:
    """Plan one case and compare it with the baselines."""
    cluster, model = case
    name, baseline = best_baseline(case)
    begun = time.perf_counter()
    plan = hk.plan(cluster, model, time_limit_s=time_limit_s)
    seconds = time.perf_counter() - begun
    regions, network = len(cluster.regions), cluster.network
    links = f"{network.within_region.bandwidth_gbps:g}"
    if regions > 1 and network.between_regions is not None:
        links += f" / {network.between_regions.bandwidth_gbps:g}"
    best = min(plan.bounds, key=lambda label: plan.bounds[label])
    ratio = plan.flow_tokens_per_s / baseline if baseline else float("inf")
    text = (
        f"| {cluster.name} | {kinds_of(cluster)} | {regions} | {links} | {model.name} | {baseline:,.1f} ({name}) | "
        f"{plan.flow_tokens_per_s:,.1f} | {ratio:.3f} | {plan.bound_tokens_per_s:,.1f} ({best}) | {plan.gap:.2%} | "
        f"{seconds:.1f} |"
    )
    return Row(text, ratio, plan.gap, seconds - 1.1 * time_limit_s - 2, regions)


HEAD = (
    "| case | machines | regions | Gbit/s within / between | model | best baseline | plan | ratio | bound | gap | s |",
    "|---|---|---:|---:|---|---:|---:|---:|---:|---:|---:|",
)


def summary(rows: list[Row], time_limit_s: float) -> str:
    """What the rows show together, in sentences."""
    lines = []
    for regions, name in ((False, "one region"), (True, "several regions")):
        gaps = [r.gap for r in rows if (r.regions > 1) == regions]
        if gaps:
            lines.append(f"Gap in {name}: median {statistics.median(gaps):.2%}, largest {max(gaps):.2%}.")
    losses = sum(r.ratio < 1 - 1e-9 for r in rows)
    late = sum(r.over_s > 0 for r in rows)
    lines.append(f"Plans below a baseline: {losses} of {len(rows)}.")
    lines.append(f"Plans that took longer than 1.1 x {time_limit_s:g} s + 2 s: {late} of {len(rows)}.")
    return "\n".join(lines)


def main() -> None:
    """Run the benchmark and print, or write, the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0, help="seed of the first case; the others follow")
    parser.add_argument("--time-limit", type=float, default=30.0)
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    rows: list[Row] = []
    print("\n".join(HEAD), flush=True)
    for seed in range(args.seed, args.seed + args.cases):
        rows.append(row(draw_case(seed), args.time_limit))
        print(rows[-1].text, flush=True)
    text = summary(rows, args.time_limit)
    print("\n" + text)
    if args.output:
        head = (
            "# Flow plans for random clusters of today's cards\n\n"
            "Written by `make bench-users` (`benchmarks/bench_users.py`): method `pattern`, objective `flow`, a time\n"
            f"limit of {args.time_limit:g} s, seeds {args.seed} to {args.seed + args.cases - 1}. The best baseline is "
            f"the best of {', '.join(BASELINES)};\nplans that put more layers on a machine than its memory holds are "
            f"left out. Python {platform.python_version()}, {platform.machine()},\n{os.cpu_count()} cores, load "
            f"average {os.getloadavg()[0]:.1f} at the end.\n\n"
        )
        args.output.write_text(head + "\n".join([*HEAD, *(r.text for r in rows)]) + "\n\n" + text + "\n")


if __name__ == "__main__":
    main()
