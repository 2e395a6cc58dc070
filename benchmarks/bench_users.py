"""Flow plans for the clusters that users have: random clusters of today's cards, against every baseline.

    python benchmarks/bench_users.py [--cases 24] [--seed 0] [--time-limit 30] [--keep FILE] [-o FILE]

Each case is drawn with a seed: 2 to 4 kinds of cards from T4 to H200 and RTX, 1 to 3 regions, links of 0.2 to
100 Gbit/s, and a model of 1B to 123B parameters that fits. The table says what the plan carries, what the best baseline
carries, the proven bound, and the seconds that the plan took of its time limit.

With `--served` the plans are those of objective `served`. They, the flow plan, every baseline and replicas of the whole
model are measured again over a long run by our runtime's rules: the plan must not serve less than the best of them, and
the long run's value should lie within the interval that the plan states. `--longer S` also plans for S seconds:

    python benchmarks/bench_users.py --served --time-limit 60 [--longer 600] [--cases 24] [--keep FILE] [-o FILE]

With `--keep FILE` each case is written to FILE as soon as it is done, and cases that are there already are not run
again: the benchmark can be broken off and goes on where it stopped. `--seconds S` begins no case after S seconds. `-o`
writes the document from all cases that are kept, of both halves.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import helix_kit as hk
from helix_kit.errors import InfeasibleError
from helix_kit.flow import Placement
from helix_kit.placement.problem import Problem
from helix_kit.simulator import Window, steady_score

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


def row(case: Case, time_limit_s: float) -> dict[str, Any]:
    """Plan one case and compare it with the baselines: the line of the table, and the numbers of the summary."""
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
    late = seconds > 1.1 * time_limit_s + 2
    return {"text": text, "ratio": ratio, "gap": plan.gap, "late": late, "regions": regions}


LONG = Window(requests=3000, warmup_lives=1.5, lives=1.0)
"""The run over which plans are measured again. All requests that are in the KV caches at its start end before its
window. In a life the requests in the caches generate all their tokens."""
BEHIND = 0.9
"""The long run of a rival that surely serves less than this share of the flow plan ends there."""
LONG_SEED = 1000
MARGIN = 0.98
"""Two long runs of plans that serve the same differ by up to 2 %."""


def long_value(case: Case, placement: Placement, at_least: float = 0.0) -> float:
    """Decode tokens/s of a placement with its balanced flow over the long run."""
    problem = Problem.of(*case)
    flow = problem.max_flow(placement, split="balanced")
    return steady_score((problem, placement, flow), window=LONG, seed=LONG_SEED, at_least=at_least).decode_tokens_per_s


def best_rival(case: Case) -> tuple[str, float]:
    """The best of the flow plan, the baselines and replicas over the long run."""
    problem = Problem.of(*case)
    rivals: dict[str, Placement] = {"flow": hk.plan(*case, time_limit_s=10.0).placement}
    whole = {n: (0, problem.num_layers) for n in problem.kind_of if problem.max_layers(n) == problem.num_layers}
    if whole:
        rivals["replicas"] = whole
    for method in BASELINES:
        with suppress(InfeasibleError):
            rivals[method] = hk.plan(*case, method=method, prove=False).placement
    different: dict[str, Placement] = {}
    for name, placement in rivals.items():
        if problem.holds(placement) and placement not in different.values():
            different[name] = placement
    values = {"flow": long_value(case, different.pop("flow"))}
    at_least = BEHIND * values["flow"]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        runs = {name: pool.submit(long_value, case, other, at_least) for name, other in different.items()}
        values |= {name: run.result() for name, run in runs.items()}
    best = max(values, key=lambda name: values[name])
    return best, values[best]


def served_row(case: Case, time_limit_s: float, longer_s: float | None) -> dict[str, Any]:
    """Plan one case for what is served, and compare it with its rivals over a long run."""
    cluster, model = case
    rival, rival_value = best_rival(case)
    begun = time.perf_counter()
    plan = hk.plan(cluster, model, objective="served", time_limit_s=time_limit_s)
    seconds = time.perf_counter() - begun
    assert plan.served is not None, "a plan of objective served"
    stated, half = plan.served.decode_tokens_per_s, plan.served.half_width_tokens_per_s
    value = steady_score(plan, window=LONG, seed=LONG_SEED).decode_tokens_per_s
    of_longer = None
    if longer_s:
        longer = hk.plan(cluster, model, objective="served", time_limit_s=longer_s)
        of_longer = value / steady_score(longer, window=LONG, seed=LONG_SEED).decode_tokens_per_s
    within = abs(value - stated) <= half
    text = (
        f"| {cluster.name} | {kinds_of(cluster)} | {len(cluster.regions)} | {model.name} | "
        f"{rival_value:,.1f} ({rival}) | {value:,.1f} | {value / rival_value:.3f} | {stated:,.1f} ± {half:,.1f} | "
        f"{'yes' if within else 'no'} | {'' if of_longer is None else f'{of_longer:.3f}'} | "
        f"{plan.served.simulations} | {seconds:.1f} |"
    )
    late = seconds > 1.1 * time_limit_s + 2
    return {"text": text, "ratio": value / rival_value, "within": within, "late": late, "of_longer": of_longer}


SERVED_HEAD = (
    "| case | machines | regions | model | best rival | plan | ratio | stated | within | of longer | simulated | s |",
    "|---|---|---:|---|---:|---:|---:|---:|---|---:|---:|---:|",
)


def served_summary(rows: list[dict[str, Any]], time_limit_s: float) -> str:
    """What the served rows show together, in sentences."""
    ratios = [r["ratio"] for r in rows]
    lines = [
        f"Plans that serve less than {MARGIN:.0%} of the best rival: {sum(r < MARGIN for r in ratios)} of "
        f"{len(rows)}; lowest ratio {min(ratios):.3f}, median {statistics.median(ratios):.3f}.",
        f"Long runs within the stated interval: {sum(r['within'] for r in rows)} of {len(rows)}.",
        late_line(rows, time_limit_s),
    ]
    longer = [r["of_longer"] for r in rows if r["of_longer"] is not None]
    if longer:
        lines.append(f"Of what the longer search's plan serves: lowest {min(longer):.3f}, over {len(longer)} cases.")
    return "\n".join(lines)


HEAD = (
    "| case | machines | regions | Gbit/s within / between | model | best baseline | plan | ratio | bound | gap | s |",
    "|---|---|---:|---:|---|---:|---:|---:|---:|---:|---:|",
)
TARGETS = {"one region": 0.01, "several regions": 0.03}
"""Gaps that plans should not exceed."""


def summary(rows: list[dict[str, Any]], time_limit_s: float) -> str:
    """What the rows show together, in sentences."""
    lines = []
    for several, (name, target) in enumerate(TARGETS.items()):
        gaps = [r["gap"] for r in rows if (r["regions"] > 1) == bool(several)]
        if gaps:
            above = sum(gap > target for gap in gaps)
            lines.append(
                f"Gap in {name}: median {statistics.median(gaps):.2%}, largest {max(gaps):.2%}; above {target:.0%}: "
                f"{above} of {len(gaps)}."
            )
    lines.append(f"Plans below a baseline: {sum(r['ratio'] < 1 - 1e-9 for r in rows)} of {len(rows)}.")
    lines.append(late_line(rows, time_limit_s))
    return "\n".join(lines)


def late_line(rows: list[dict[str, Any]], time_limit_s: float) -> str:
    """How many plans took longer than they should."""
    late = sum(r["late"] for r in rows)
    return f"Plans that took longer than 1.1 x {time_limit_s:g} s + 2 s: {late} of {len(rows)}."


def kept_rows(path: Path | None) -> list[dict[str, Any]]:
    """The cases that a file keeps, one a line."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path and path.exists() else []


def run_cases(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Run the cases that are not kept, print them, and return all rows of both halves."""
    half = "served" if args.served else "flow"
    rows = kept_rows(args.keep)
    done = {r["seed"] for r in rows if r["half"] == half and r["time_limit_s"] == args.time_limit}
    print("\n".join(SERVED_HEAD if args.served else HEAD), flush=True)
    begun = time.perf_counter()
    for seed in range(args.seed, args.seed + args.cases):
        if seed in done or (args.seconds and time.perf_counter() - begun > args.seconds):
            continue
        case = draw_case(seed)
        measured = served_row(case, args.time_limit, args.longer) if args.served else row(case, args.time_limit)
        load = os.getloadavg()[0]
        rows.append({"half": half, "seed": seed, "time_limit_s": args.time_limit, "load": load, **measured})
        print(measured["text"], flush=True)
        if args.keep:
            with args.keep.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
    return rows


def section(half: str, rows: list[dict[str, Any]]) -> str:
    """One half of the document: what was done, the table, and the sentences."""
    rows = sorted(rows, key=lambda r: r["seed"])
    limits = sorted({r["time_limit_s"] for r in rows})
    loads = [r["load"] for r in rows]
    numbers = [r["seed"] for r in rows]
    in_a_row = len(numbers) > 1 and numbers == list(range(numbers[0], numbers[-1] + 1))
    seeds = f"{numbers[0]} to {numbers[-1]}" if in_a_row else ", ".join(map(str, numbers))
    how = (
        f"A time limit of {' or '.join(f'{limit:g}' for limit in limits)} s, seeds {seeds}. "
        f"The load average was {min(loads):.1f} to\n{max(loads):.1f} at the end of the cases, on "
        f"{os.cpu_count()} cores (1 or 2 would be this program alone).\n"
        f"Python {platform.python_version()}, {platform.machine()}.\n"
    )
    if half == "flow":
        title = "## Flow plans"
        what = (
            f"Method `pattern`, objective `flow`. The best baseline is the best of {', '.join(BASELINES)};\n"
            "plans that put more layers on a machine than its memory holds are left out.\n"
        )
        head, text = HEAD, summary(rows, max(limits))
    else:
        title = "## Served plans"
        what = (
            f"Objective `served`. Rivals are the flow plan, {', '.join(BASELINES)} and replicas;\n"
            "decode tokens/s over a long run by our runtime's rules.\n"
        )
        head, text = SERVED_HEAD, served_summary(rows, max(limits))
    return "\n".join([title, "", what + how, *head, *(r["text"] for r in rows), "", text, ""])


def main() -> None:
    """Run the benchmark and print, or write, the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0, help="seed of the first case; the others follow")
    parser.add_argument("--time-limit", type=float, default=30.0)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--keep", type=Path, metavar="FILE", help="write each case to FILE, skip cases that are there")
    parser.add_argument("--seconds", type=float, help="begin no case after so many seconds")
    parser.add_argument("--served", action="store_true", help="plans of objective served, against their rivals")
    parser.add_argument("--longer", type=float, help="with --served: also plan for so many seconds, and compare")
    args = parser.parse_args()
    rows = run_cases(args)
    sections = [
        section(half, of_half) for half in ("flow", "served") if (of_half := [r for r in rows if r["half"] == half])
    ]
    print("\n" + "\n\n".join(text.rsplit("|\n", 1)[-1].strip() for text in sections))
    if args.output:
        title = (
            "# Plans for random clusters of today's cards\n\n"
            "Written by `benchmarks/bench_users.py`, which draws each cluster and model with a seed.\n\n"
        )
        args.output.write_text(title + "\n".join(sections))


if __name__ == "__main__":
    main()
