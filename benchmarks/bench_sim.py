"""CPU-seconds and peak memory of the simulator for ten simulated minutes, and how they grow.

    python benchmarks/bench_sim.py [--quick] [--json FILE] [--plot FILE]

First the three published offline runs of Helix's scheduler under the published rules, beside what the published
simulator needs (logs off, comparable cores); then range execution against requests and against nodes; then, on the 24
machines of the paper, range execution with prefix caches beside the same run without.
Each case runs in a process of its own, after compilation.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench_prefix import MEAN_TOKENS, OUTPUT_TOKENS, QUESTION_TOKENS, TURNS, conversations

PUBLISHED = {"single": 297.0, "geo": 110.0, "hetero42": 846.0}
"""CPU-seconds of the published simulator (logs off, comparable cores)."""
TARGETS = {"single": 2.0, "geo": 1.0, "hetero42": 5.0}
TARGET_MB = 500
GPUS_PER_LANE = 8
REQUESTS_PER_S_AND_NODE = 0.05
CACHE_TARGET = 1.5
"""What a run with prefix caches may cost, as a multiple of the same run without."""
CACHE_LOAD = 0.8
"""Load of the runs with prefix caches, as a share of the plan's flow."""
CACHE_CASES = (("conversations", "helix"), ("conversations", "prefix"), ("unshared", "helix"), ("azure", "helix"))
"""Workload and policy: conversations in Mooncake's format; prompts of the same lengths whose contents are known, but
not shared; and the published trace of Azure, which says nothing of contents."""
REPEATS = 5


def published_case(setup: str) -> dict[str, float]:
    from helix_kit.experiments.figures.common.published import published_run

    run = published_run(setup, "llama2-70b", "helix", "offline")
    run.run()
    began = time.process_time()
    result = run.run()
    return {
        "cpu_s": time.process_time() - began,
        "decode_tokens_per_s": result.summary()["decode_tokens_per_s"],
    }


def scaled_case(nodes: int, rate: float) -> dict[str, float]:
    """`nodes` A100s as eight stages of a 70B model, for ten minutes of conversation traffic."""
    from helix_kit import Cluster, Model, Plan, Problem, Workload, simulate

    cluster = Cluster.model_validate({"name": "scaled", "nodes": [{"gpu": "A100-40G", "count": nodes}]})
    spans = {
        node.name: (10 * (i % GPUS_PER_LANE), 10 * (i % GPUS_PER_LANE) + 10) for i, node in enumerate(cluster.nodes)
    }
    plan = Plan.from_placement(Problem.of(cluster, Model.preset("llama2-70b")), spans, method="lanes")
    lanes = [  # lane by lane, as a planner that keeps replicas apart would link them
        pair
        for first in range(0, nodes - nodes % GPUS_PER_LANE, GPUS_PER_LANE)
        for pair in _lane([node.name for node in cluster.nodes[first : first + GPUS_PER_LANE]])
    ]
    simulate(plan, Workload.constant(1.0, 1.0), policy="random", links=lanes, duration_s=1.0)
    workload = Workload.azure_conversation(rate_per_s=rate, duration_s=600, seed=0)
    began = time.process_time()
    run = simulate(plan, workload, policy="random", links=lanes, duration_s=600)
    return {
        "cpu_s": time.process_time() - began,
        "requests": len(workload),
        "decode_tokens_per_s": run.summary()["decode_tokens_per_s"],
    }


def cached_case(kind: str, policy: str, duration_s: float) -> dict[str, float]:
    """Llama 3.1 8B on `single24`, with prefix caches and without, in turn; of each the fastest run counts."""
    from helix_kit import Cluster, Model, Workload, plan, simulate
    from helix_kit.simulator import BatchingOptions

    made = plan(Cluster.preset("single24"), Model.preset("llama3.1-8b"), objective="flow", deterministic=True)
    rate = CACHE_LOAD * made.flow_tokens_per_s / MEAN_TOKENS
    if kind == "conversations":
        with tempfile.TemporaryDirectory() as folder:
            workload = conversations(rate, duration_s, 0, Path(folder))
    elif kind == "unshared":
        workload = Workload.conversations(
            rate, duration_s, turns=1, system_tokens=0, question_tokens=round(QUESTION_TOKENS * TURNS),
            output_tokens=OUTPUT_TOKENS, seed=0,
        ).limited(max_input=40_000)  # fmt: skip
    else:
        workload = Workload.azure_conversation(rate_per_s=1.0, duration_s=duration_s, seed=0)
        tokens = sum(r.input_tokens + r.output_tokens for r in workload) / len(workload)
        rate = CACHE_LOAD * made.flow_tokens_per_s / tokens
        workload = Workload.azure_conversation(rate_per_s=rate, duration_s=duration_s, seed=0)
    fastest, hit_rate = {False: float("inf"), True: float("inf")}, 0.0
    for cache in (False, True):
        simulate(made, workload, policy=policy, options=BatchingOptions(prefix_cache=cache), duration_s=1.0)
    for cache in (False, True) * REPEATS:
        began = time.process_time()
        run = simulate(made, workload, policy=policy, options=BatchingOptions(prefix_cache=cache))
        fastest[cache] = min(fastest[cache], time.process_time() - began)
        hit_rate = run.summary()["prefix_hit_rate"]
    return {
        "requests": len(workload),
        "hit_rate": hit_rate,
        "cpu_s_off": fastest[False],
        "cpu_s": fastest[True],
        "ratio": fastest[True] / fastest[False],
    }


def _lane(names: list[str]) -> list[tuple[str, str]]:
    path = ["coordinator", *names, "coordinator"]
    return list(itertools.pairwise(path))


def in_own_process(*arguments: str) -> dict[str, float]:
    done = subprocess.run([sys.executable, __file__, "--case", *arguments], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def plot(table: list[dict], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    for axes, kind, x in zip(figure.subplots(1, 2), ("requests", "nodes"), ("requests", "nodes"), strict=True):
        rows = [row for row in table if row["kind"] == kind]
        axes.loglog([r[x] for r in rows], [r["cpu_s"] for r in rows], marker="o")
        axes.set(xlabel=x, ylabel="CPU-seconds for ten simulated minutes", title=f"growth with {kind}")
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument(
        "--quick", action="store_true", help="only the published runs, the smallest scales and short runs with caches"
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    if args.case:
        kind, *rest = args.case
        if kind == "published":
            result = published_case(rest[0])
        elif kind == "cached":
            result = cached_case(rest[0], rest[1], float(rest[2]))
        else:
            result = scaled_case(int(rest[0]), float(rest[1]))
        result["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(result))
        return
    table = []
    print(f"{'published rules, offline':32}{'CPU-s':>8}{'target':>8}{'theirs':>8}{'MB':>7}{'tokens/s':>10}")
    for setup, theirs in PUBLISHED.items():
        row = {"kind": "published", "setup": setup, **in_own_process("published", setup)}
        table.append(row)
        print(
            f"{setup:32}{row['cpu_s']:8.2f}{TARGETS[setup]:8.1f}{theirs:8.0f}{row['peak_mb']:7.0f}"
            f"{row['decode_tokens_per_s']:10.2f}",
            flush=True,
        )
    print(f"\n{'range execution':16}{'nodes':>8}{'requests':>10}{'CPU-s':>8}{'ms/request':>12}{'MB':>7}")
    by_requests = [(96, rate) for rate in ((0.6, 1.2) if args.quick else (0.6, 1.2, 2.4, 4.8))]
    by_nodes = [(n, REQUESTS_PER_S_AND_NODE * n) for n in ((24, 104) if args.quick else (24, 104, 304, 1000))]
    for kind, cases in (("requests", by_requests), ("nodes", by_nodes)):
        for nodes, rate in cases:
            row = {"kind": kind, "nodes": nodes, **in_own_process("scaled", str(nodes), str(rate))}
            table.append(row)
            each = 1e3 * row["cpu_s"] / row["requests"]
            print(
                f"by {kind:13}{nodes:8d}{row['requests']:10.0f}{row['cpu_s']:8.2f}{each:12.2f}{row['peak_mb']:7.0f}",
                flush=True,
            )
    head = f"{'prefix caches':16}{'policy':>8}{'requests':>10}{'hits':>7}{'off CPU-s':>11}{'on CPU-s':>10}"
    print(f"\n{head}{'on/off':>8}{'target':>8}{'MB':>7}")
    for kind, policy in CACHE_CASES:
        row = {"kind": "cached", "workload": kind, "policy": policy}
        row |= in_own_process("cached", kind, policy, "300" if args.quick else "900")
        table.append(row)
        print(
            f"{kind:16}{policy:>8}{row['requests']:10.0f}{row['hit_rate']:7.1%}{row['cpu_s_off']:11.2f}"
            f"{row['cpu_s']:10.2f}{row['ratio']:8.2f}{CACHE_TARGET:8.1f}{row['peak_mb']:7.0f}",
            flush=True,
        )
    if args.json:
        args.json.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    if args.plot:
        plot(table, args.plot)


if __name__ == "__main__":
    main()
