"""What served plans serve, beside the published Helix plans: decode tokens/s and mean latencies over length seeds.

Offline under the published simulator's rules, the published request stream as seed 0 and lengths drawn anew for the
others; `--online` at the published rates; `--execution range` by our runtime's rules with chunked prefill.

    python benchmarks/bench_served.py --clusters single24 --splits balanced any -o docs/served-bench.md
"""

from __future__ import annotations

import argparse
import platform
from pathlib import Path
from typing import Any

import numpy as np

import helix_kit as hk
from helix_kit.experiments import published
from helix_kit.placement.plan import Plan
from helix_kit.simulator import score, simulate

SETUPS = {"single24": "single", "geo24": "geo", "hetero42": "hetero42"}
SEEDS = range(6)
METRICS = ("decode_tokens_per_s", "prompt_latency_s", "decode_latency_s")
TOKENS_A_REQUEST = 995.5
"""The published offered loads are tokens/s of requests with this many on average."""


def published_means(setup: str, model: str, mode: str) -> dict[str, float]:
    """The published plan as published, on the published stream."""
    run = published.find(setup, model, "helix", mode).run()  # type: ignore[arg-type]
    return _means_of(run.summary())


def _means_of(summary: dict[str, Any]) -> dict[str, float]:
    latencies = {k: float(summary[k]["avg"]) for k in METRICS[1:]}
    return {"decode_tokens_per_s": float(summary["decode_tokens_per_s"]), **latencies}


def offline_means(plan: Plan, execution: str) -> dict[str, float]:
    """Means over the length seeds of a ten-minute backlog run."""
    stream = published.stream({})
    runs = [
        score(plan, stream if seed == 0 else None, execution=execution, duration=600.0, seed=seed)  # type: ignore[arg-type]
        for seed in SEEDS
    ]
    return {k: float(np.mean([r[k] for r in runs])) for k in METRICS}


def online_means(plan: Plan, setup: str, model: str) -> dict[str, float]:
    """The published arrivals, half an hour of them."""
    (part,) = published.find(setup, model, "helix", "online").parts
    warmup, duration = published.ONLINE_WINDOW_S
    run = simulate(
        plan, published.stream(part), mode="online", execution="layerwise", warmup=warmup, duration=duration
    )  # fmt: skip
    return _means_of(run.summary())


def row(args: argparse.Namespace, cluster: str, split: str) -> str:
    """Plan, measure, and compare: one line of the table."""
    setup, mode = SETUPS[cluster], "online" if args.online else "offline"
    theirs = published_means(setup, args.model, mode)
    options: dict[str, Any] = {"mode": mode, "flow_split": split, "execution": args.execution}
    if args.keep_latencies:
        options |= {
            "prompt_latency_limit_s": args.margin * theirs["prompt_latency_s"],
            "latency_limit_s": args.margin * theirs["decode_latency_s"],
        }
    if args.online:
        (part,) = published.find(setup, args.model, "helix", "online").parts
        options["rate"] = part["offered_tokens_per_s"] / TOKENS_A_REQUEST
    plan = hk.plan(
        cluster, args.model, objective="served", time_limit=args.time_limit, jobs=args.jobs, **options
    )  # fmt: skip
    if args.plans:
        args.plans.mkdir(parents=True, exist_ok=True)
        plan.save(args.plans / f"{cluster}-{args.model}-{mode}-{split}-{args.execution}.json")
    ours = online_means(plan, setup, args.model) if args.online else offline_means(plan, args.execution)
    simulations = (plan.served or {})["simulations"]
    return (
        f"| {cluster} | {args.model} | {mode} | {args.execution} | {split} | {theirs['decode_tokens_per_s']:.1f} | "
        f"{ours['decode_tokens_per_s']:.1f} | {ours['decode_tokens_per_s'] / theirs['decode_tokens_per_s']:.2f} | "
        f"{theirs['prompt_latency_s']:.2f} | {ours['prompt_latency_s']:.2f} | {theirs['decode_latency_s']:.2f} | "
        f"{ours['decode_latency_s']:.2f} | {simulations} | {plan.seconds:.0f} |"
    )


def main() -> None:
    """Run the benchmark; print the rows, and append them to the table of an output file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clusters", nargs="*", default=list(SETUPS), choices=list(SETUPS))
    parser.add_argument("--model", default="llama2-70b")
    parser.add_argument("--splits", nargs="*", default=["balanced", "any"], choices=["balanced", "any"])
    parser.add_argument("--execution", default="layerwise", choices=["layerwise", "range"])
    parser.add_argument("--online", action="store_true", help="at the published rates, judged by latency")
    parser.add_argument(
        "--keep-latencies", action="store_true", help="mark down plans with longer mean latencies than published"
    )
    parser.add_argument("--margin", type=float, default=0.97, help="share of the published latencies to stay under")
    parser.add_argument("--time-limit", type=float, default=240.0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--plans", type=Path, help="folder for the plans")
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    head = (
        "# What served plans serve\n\n"
        "Written by `make bench-served` (`benchmarks/bench_served.py`). Offline: means over six length seeds of ten\n"
        "minutes each, the first the published stream; the published plan on that stream. Latencies are means.\n"
        f"Python {platform.python_version()}, {platform.machine()}; other work ran on the machine.\n\n"
        "| cluster | model | mode | execution | split | published tokens/s | ours | times | prompt s | ours | "
        "decode s | ours | simulated | planning s |\n"
        "|---|---|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n"
    )
    if args.output and not args.output.exists():
        args.output.write_text(head)
    for cluster in args.clusters:
        for split in args.splits:
            line = row(args, cluster, split)
            print(line, flush=True)
            if args.output:
                with args.output.open("a") as table:
                    table.write(line + "\n")


if __name__ == "__main__":
    main()
