"""CPU-seconds and peak memory of the simulator for ten simulated minutes, and how they grow.

    python benchmarks/bench_sim.py [--quick] [--json FILE] [--plot FILE]

First the three published offline runs of Helix's scheduler under the published rules, beside what the published
simulator needs (logs off, comparable cores); then range execution against requests and against nodes.
Each case runs in a process of its own, after compilation.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

PUBLISHED = {"single": 297.0, "geo": 110.0, "hetero42": 846.0}
"""CPU-seconds of the published simulator (logs off, comparable cores)."""
TARGETS = {"single": 2.0, "geo": 1.0, "hetero42": 5.0}
TARGET_MB = 500
GPUS_PER_LANE = 8
REQUESTS_PER_S_AND_NODE = 0.05


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
    parser.add_argument("--quick", action="store_true", help="only the published runs and the smallest scales")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    if args.case:
        kind, *rest = args.case
        result = published_case(rest[0]) if kind == "published" else scaled_case(int(rest[0]), float(rest[1]))
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
    if args.json:
        args.json.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    if args.plot:
        plot(table, args.plot)


if __name__ == "__main__":
    main()
