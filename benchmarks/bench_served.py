"""What served plans serve, beside the published Helix plans: decode tokens/s and mean latencies over length seeds.

Offline under the published simulator's rules, the published request stream as seed 0 and lengths drawn anew for the
others; online at the published rates; by our runtime's rules (`range` execution, chunked prefill); with wrong
profiles; and how well the predictor orders plans that it was not fitted on. All sections take a good hour on two
idle cores. Sections, clusters and models can be run alone: in a document that is there already only their rows change,
and its last table says when and where each row was measured:

    python benchmarks/bench_served.py --sections any --clusters geo24 -o docs/served-bench.md
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np

import helix_kit as hk
from helix_kit.analysis import robustness
from helix_kit.experiments.figures.common.published import ONLINE_WINDOW_S, offline_requests, published_run
from helix_kit.placement.plan import Plan
from helix_kit.search.held_out import held_out
from helix_kit.simulator import score, simulate
from helix_kit.typical_request import TRACE_TOKENS

SETUPS = {"single24": "single", "geo24": "geo", "hetero42": "hetero42"}
SEEDS = range(6)
METRICS = ("decode_tokens_per_s", "prompt_latency_s", "decode_latency_s")
MARGIN = 0.97
"""The latency limits of the searches, as a share of the published mean latencies."""
TIME_LIMIT_S = {"single24": 150.0, "geo24": 150.0, "hetero42": 280.0}
"""Of a search; that of 42 machines needs longer."""
RIVALS = ("swarm", "petals", "separate", "separate-plus", "proportional")
SAMPLES = 10

SERVED_HEAD = (
    "| cluster | model | published tokens/s | ours | times | prompt s | ours | decode s | ours | stages | simulated | "
    "planning s |\n|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n"
)
SECTIONS: dict[str, tuple[str, str]] = {
    "offline": (
        "Offline, balanced flow",
        "`execution=layerwise`, Helix's scheduler. The search is told to keep both mean latencies under 97 % of the\n"
        "published plan's.\n\n" + SERVED_HEAD,
    ),
    "any": (
        "Offline, any maximum flow",
        '`flow_split="any"`: the first maximum flow met, as published; latencies kept as above.\n\n' + SERVED_HEAD,
    ),
    "online": (
        "Online at the published rates",
        "Published arrivals, half an hour; judged by latency, at 97 % of the published means or less.\n\n"
        + SERVED_HEAD,
    ),
    "range": (
        "Offline by the rules of our runtime",
        "`execution=range`: nodes run whole ranges, prefill is cut into chunks, decodes go first. The published plan\n"
        "is simulated by the same rules; no latency limits.\n\n" + SERVED_HEAD,
    ),
    "robustness": (
        "Wrong profiles",
        f"In each of {SAMPLES} draws the times of each kind of machine are off by up to 20 %; plans and flows stay as\n"
        "planned, and all are simulated (ten minutes). The plans are those of the first section.\n\n"
        "| cluster | model | ours: mean, worst tokens/s | rival | rival's mean | ours ahead in |\n"
        "|---|---|---:|---|---:|---:|\n",
    ),
    "predictor": (
        "Predictor on held-out plans",
        "Spearman's rank correlation with the simulated decode tokens/s over random plans that the predictor's\n"
        "constants were not fitted on (`helix_kit.search.held_out`).\n\n"
        "| cluster | model | plans | predictor | max flow |\n|---|---|---:|---:|---:|\n",
    ),
}
MEASURED = (
    "When and where",
    "| section | cluster | model | date | Python | machine | cores | worker processes |\n"
    "|---|---|---|---|---|---|---:|---:|\n",
)


def published_means(setup: str, model: str, mode: str, execution: str = "layerwise") -> dict[str, float]:
    """The published plan on the published stream, by the published rules or by our runtime's."""
    run = published_run(setup, model, "helix", mode).run(execution=execution)  # type: ignore[arg-type]
    return _means_of(run.summary())


def _means_of(summary: dict[str, Any]) -> dict[str, float]:
    latencies = {k: float(summary[k]["avg"]) for k in METRICS[1:]}
    return {"decode_tokens_per_s": float(summary["decode_tokens_per_s"]), **latencies}


def _ten_minutes(plan: Plan, execution: str, seed: int) -> dict[str, float]:
    stream = offline_requests() if seed == 0 else None
    return score(plan, stream, execution=execution, duration_s=600.0, seed=seed).to_dict()  # type: ignore[arg-type]


def offline_means(plan: Plan, execution: str, jobs: int = 1) -> dict[str, float]:
    """Means over the length seeds of a ten-minute backlog run."""
    if jobs > 1:
        with ProcessPoolExecutor(jobs) as pool:
            runs = list(pool.map(_ten_minutes, repeat(plan), repeat(execution), SEEDS))
    else:
        runs = [_ten_minutes(plan, execution, seed) for seed in SEEDS]
    return {k: float(np.mean([r[k] for r in runs])) for k in METRICS}


def online_means(plan: Plan, setup: str, model: str) -> dict[str, float]:
    """The published arrivals, half an hour of them."""
    (whole,) = published_run(setup, model, "helix", "online").subclusters
    warmup_s, duration_s = ONLINE_WINDOW_S
    run = simulate(
        plan, whole.requests(), mode="online", execution="layerwise", warmup_s=warmup_s, duration_s=duration_s
    )
    return _means_of(run.summary())


def plan_of(args: argparse.Namespace, section: str, cluster: str, model: str, theirs: dict[str, float]) -> Plan:
    """The plan of a row; saved in the folder of plans, if there is one."""
    kept = args.plans / f"{section}-{cluster}-{model}.json" if args.plans else None
    options: dict[str, Any] = {"flow_split": "any" if section == "any" else "balanced"}
    if section == "range":
        options["execution"] = "range"
    else:
        options["prompt_latency_limit_s"] = MARGIN * theirs["prompt_latency_s"]
        options["latency_limit_s"] = MARGIN * theirs["decode_latency_s"]
    if section == "online":
        (whole,) = published_run(SETUPS[cluster], model, "helix", "online").subclusters
        options |= {"mode": "online", "rate": whole.offered_tokens_per_s / TRACE_TOKENS}
    limit_s = args.time_limit or TIME_LIMIT_S[cluster]
    plan = hk.plan(cluster, model, objective="served", time_limit_s=limit_s, jobs=args.jobs, **options)
    if kept:
        kept.parent.mkdir(parents=True, exist_ok=True)
        plan.save(kept)
    return plan


def served_row(args: argparse.Namespace, section: str, cluster: str, model: str) -> str:
    """Plan, measure, and compare: one line of a table."""
    setup, mode = SETUPS[cluster], "online" if section == "online" else "offline"
    execution = "range" if section == "range" else "layerwise"
    theirs = published_means(setup, model, mode, execution)
    plan = plan_of(args, section, cluster, model, theirs)
    ours = online_means(plan, setup, model) if mode == "online" else offline_means(plan, execution, args.jobs)
    assert plan.served is not None, "a plan of objective served"
    pairs = " | ".join(f"{theirs[k]:.2f} | {ours[k]:.2f}" for k in METRICS[1:])
    return (
        f"| {cluster} | {model} | {theirs[METRICS[0]]:.1f} | {ours[METRICS[0]]:.1f} | "
        f"**{ours[METRICS[0]] / theirs[METRICS[0]]:.2f}** | {pairs} | {plan.served.stages} | "
        f"{plan.served.simulations} | {plan.seconds:.0f} |\n"
    )


def robustness_rows(args: argparse.Namespace, cluster: str, model: str) -> str:
    """Our plan and the heuristics in worlds with other profiles."""
    kept = args.plans / f"offline-{cluster}-{model}.json" if args.plans else None
    if kept and kept.exists():
        plan = Plan.load(kept)
    else:
        plan = plan_of(args, "offline", cluster, model, published_means(SETUPS[cluster], model, "offline"))
    table = robustness(plan, samples=SAMPLES, against=RIVALS, measure="served").to_dict("records")
    mine = f"{table[0]['mean']:.1f}, {table[0]['worst']:.1f}"
    return "".join(
        f"| {cluster} | {model} | {mine} | {rival['method']} | {rival['mean']:.1f} | "
        f"{rival['beaten_by_plan_percent']:.0f} % |\n"
        for rival in table[1:]
    )


def predictor_row(cluster: str, model: str) -> str:
    """How predictor and maximum flow order random plans."""
    found = held_out(hk.Problem.of(hk.Cluster.preset(cluster), hk.Model.preset(model)))
    return f"| {cluster} | {model} | {found.plans} | {found.predictor:.2f} | {found.max_flow:.2f} |\n"


def rows(args: argparse.Namespace, section: str, cluster: str, model: str) -> str:
    """Lines of one section for one cluster and model."""
    if section == "robustness":
        return robustness_rows(args, cluster, model)
    if section == "predictor":
        return predictor_row(cluster, model)
    return served_row(args, section, cluster, model)


HEAD = (
    "# What served plans serve\n\n"
    "Written by `make bench-served` (`benchmarks/bench_served.py`); the last table says when and where each row was\n"
    "measured.\n\n"
    "Offline: means over six length seeds of ten minutes each, the first the published stream; the published\n"
    "plan on that stream. Latencies are means over requests and decode steps. The published 30B plans are three\n"
    "separate clusters with a scheduler each, theirs added up; ours is one.\n"
)


def measured_row(args: argparse.Namespace, section: str, cluster: str, model: str) -> str:
    """The date and this machine, as a row."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (
        f"| {section} | {cluster} | {model} | {datetime.date.today()} | {platform.python_version()} | "
        f"{platform.machine()} | {cores} | {args.jobs} |\n"
    )


def rows_in(document: list[str], part: tuple[str, str]) -> range | None:
    """The lines of a document with the rows of a part's table; None if it has no such part.

    Raises ValueError if the part has a table of other columns.
    """
    title, intro = part
    if f"## {title}" not in document:
        return None
    first = document.index(f"## {title}") + 1
    last = next((i for i in range(first, len(document)) if document[i].startswith("## ")), len(document))
    columns = intro.splitlines()[-2]
    if columns not in document[first:last]:
        raise ValueError(f"the table of {title!r} has other columns than this program writes; write to another file")
    start = document.index(columns, first) + 2
    return range(start, next((i for i in range(start, last) if not document[i].startswith("|")), last))


def merged(text: str, part: tuple[str, str], lines: str, cells: Sequence[str]) -> str:
    """The document with `lines` in place of the rows of that part that begin with `cells`, or after the others."""
    document = text.splitlines()
    found = rows_in(document, part)
    if found is None:
        title, intro = part
        before, mark, after = text.partition(f"\n## {MEASURED[0]}\n")
        return f"{before.rstrip()}\n\n## {title}\n\n{intro}{lines}{mark}{after}"
    begin = "| " + " | ".join(cells) + " "
    old = [i for i in found if document[i].startswith(begin)]
    at = old[0] if old else found.stop
    kept = [line for i, line in enumerate(document) if i not in old]
    return "\n".join([*kept[:at], *lines.splitlines(), *kept[at:]]) + "\n"


def main() -> None:
    """Run the benchmark; print the rows, and put them into the tables of an output file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sections", nargs="*", default=list(SECTIONS), choices=list(SECTIONS))
    parser.add_argument("--clusters", nargs="*", default=list(SETUPS), choices=list(SETUPS))
    parser.add_argument("--models", nargs="*", default=["llama2-70b", "llama-30b"])
    limits = ", ".join(f"{name} {seconds:g}" for name, seconds in TIME_LIMIT_S.items())
    parser.add_argument("--time-limit", type=float, help=f"seconds a search, for every cluster; else {limits}")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--plans", type=Path, help="folder to keep the plans in, and to take those of robustness from")
    parser.add_argument("-o", "--output", type=Path, help="document to write; of one that is there only these rows")
    args = parser.parse_args()
    if args.output and args.output.exists():
        # Before an hour is spent.
        try:
            for part in (*(SECTIONS[s] for s in args.sections), MEASURED):
                rows_in(args.output.read_text().splitlines(), part)
        except ValueError as error:
            parser.error(f"{args.output}: {error}")
    elif args.output:
        args.output.write_text(HEAD)
    for section in args.sections:
        # 30B was published on two clusters, and is the matter of the first table alone.
        models = [m for m in args.models if m == "llama2-70b" or section == "offline"]
        for model in models:
            for cluster in (c for c in args.clusters if model == "llama2-70b" or c != "hetero42"):
                lines = rows(args, section, cluster, model)
                sys.stdout.write(f"{section}: {lines}")
                sys.stdout.flush()
                if args.output:
                    text = merged(args.output.read_text(), SECTIONS[section], lines, (cluster, model))
                    row = measured_row(args, section, cluster, model)
                    args.output.write_text(merged(text, MEASURED, row, (section, cluster, model)))


if __name__ == "__main__":
    main()
