"""What served plans serve beside the published Helix plans: tokens/s and latencies over six request streams.

The plans are stored in ``data/served_plans`` and measured again; nothing is searched for unless ``--search`` says so:

    python benchmarks/bench_served.py                                               # the tables, on the terminal
    python benchmarks/bench_served.py --sections offline --clusters geo24           # some rows
    python benchmarks/bench_served.py --search --sections any --clusters geo24 -o docs/served-bench.md

Offline under the published simulator's rules, on the streams that the published sampler draws with six seeds (searches
draw from another sampler); online at the published rates; by our runtime's rules (`range` execution); with wrong
profiles; and how well the predictor orders plans that it was not fitted on. In a document that is there already only
the rows that were asked for change; its last table says when and where each row was measured.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from served_table import HEAD, MEASURED, PLANS, SAMPLES, SECTIONS, merged, rows_in, write_sentence

import helix_kit as hk
from helix_kit.analysis import robustness
from helix_kit.experiments.figures.common import comparison, served_plans
from helix_kit.experiments.figures.common.comparison import LABELS, Means
from helix_kit.experiments.figures.common.metrics import PHASES
from helix_kit.experiments.figures.common.published import STREAM_SEEDS, published_run
from helix_kit.experiments.figures.common.settings import SETTINGS, Setting, helix_simulation
from helix_kit.experiments.figures.common.simulation import Simulation
from helix_kit.flow import longest_path
from helix_kit.placement.plan import Plan
from helix_kit.search.candidate import LatencyLimits, value_of
from helix_kit.search.held_out import held_out
from helix_kit.simulator import score
from helix_kit.typical_request import TRACE_TOKENS

SETUPS = {"single24": "single", "geo24": "geo", "hetero42": "hetero42"}
MARGIN = 0.97
"""The latency limits of the searches, as a share of the published mean latencies."""
TIME_LIMIT_S = {"single24": 150.0, "geo24": 150.0, "hetero42": 280.0}
"""Of a search; that of 42 machines needs longer."""
RIVALS = ("swarm", "petals", "separate", "separate-plus", "proportional")
JUDGE_SEEDS = (1001, 1002, 1003)
"""Streams of the search's own sampler on which a new plan must beat the stored one: none of a search or of a table."""
SEARCHED = ("offline", "any", "online", "range")
"""Sections with a stored plan in each row."""


def setting_of(cluster: str, model: str) -> Setting:
    """The cluster and model as the paper's evaluation names them."""
    return SETTINGS[SETUPS[cluster], model]


def measured(simulations: Sequence[Simulation], jobs: int, seeds: Sequence[int] = STREAM_SEEDS) -> Means:
    """Means over the streams, which `jobs` processes simulate."""
    if jobs <= 1:
        return comparison.means_of(simulations, seeds=seeds)
    with ProcessPoolExecutor(jobs) as pool:
        runs = pool.map(comparison.measure, [comparison.on_stream(simulations, seed) for seed in seeds])
        return Means.of(list(runs))


def online_variants(setting: Setting, plan: Plan) -> dict[str, Means]:
    """The published plan, the fair base and ours at the published arrivals."""
    run = published_run(setting.setup, setting.model, "helix", "online")
    (whole,) = run.subclusters
    placement = run.plans()[0].placement
    fair = Plan.from_placement(setting.problem(), placement, method="published")
    steps = {
        "published": run.simulations(),
        "fair base": [helix_simulation(fair, "online", whole.requests())],
        "ours": [helix_simulation(plan, "online", whole.requests())],
    }
    return {name: Means.of([comparison.measure(simulations)]) for name, simulations in steps.items()}


def base_of(section: str, cluster: str, model: str, jobs: int) -> Means:
    """The published plan, in the section's mode and by its rules."""
    setting = setting_of(cluster, model)
    if section == "online":
        return Means.of([comparison.measure(published_run(setting.setup, model, "helix", "online").simulations())])
    execution = "range" if section == "range" else "layerwise"
    return measured(comparison.published_simulations(setting, execution), jobs)  # type: ignore[arg-type]


def search(args: argparse.Namespace, section: str, cluster: str, model: str) -> Plan:
    """A new plan for a row, by a search."""
    base = base_of(section, cluster, model, args.jobs)
    options: dict[str, Any] = {"flow_split": "any" if section == "any" else "balanced", "execution": "layerwise"}
    if section == "range":
        options["execution"] = "range"
    else:
        options["prompt_latency_limit_s"] = MARGIN * base.latency_s["prompt"]
        options["latency_limit_s"] = MARGIN * base.latency_s["decode"]
    if served_plans.has_plan(section, cluster, model):
        options["start"] = served_plans.served_plan(section, cluster, model)
    if section == "online":
        options |= {"mode": "online", "rate_per_s": online_rate_per_s(cluster, model)}
    if args.window:
        options["window_s"] = args.window
    limit_s = args.time_limit or TIME_LIMIT_S[cluster]
    return hk.plan(cluster, model, objective="served", time_limit_s=limit_s, jobs=args.jobs, seed=args.seed, **options)


def online_rate_per_s(cluster: str, model: str) -> float:
    """Requests/s of the published online run."""
    (whole,) = published_run(SETUPS[cluster], model, "helix", "online").subclusters
    assert whole.offered_tokens_per_s is not None, "an online run"
    return whole.offered_tokens_per_s / TRACE_TOKENS


def value(plan: Plan, section: str, base: Means) -> float:
    """What a plan is worth on streams of the search's sampler that no search and no table uses."""
    limits = (
        LatencyLimits() if section == "range" else LatencyLimits(base.latency_s["decode"], base.latency_s["prompt"])
    )
    is_online = section == "online"
    values = []
    for seed in JUDGE_SEEDS:
        workload = None
        if is_online:
            rate_per_s = online_rate_per_s(plan.cluster.name, plan.model.name)
            workload = hk.Workload.azure_conversation(rate_per_s, 660.0, seed=seed)
        result = score(
            plan, workload, mode="online" if is_online else "offline",
            execution="range" if section == "range" else "layerwise", duration_s=600.0, seed=seed,
        )  # fmt: skip
        values.append(value_of(result, limits, online=is_online))
    return float(np.mean(values))


def store_if_better(args: argparse.Namespace, section: str, cluster: str, model: str) -> None:
    """Search for a plan, and store it in place of the stored one where it is better on the judge's streams."""
    plan = search(args, section, cluster, model)
    base = base_of(section, cluster, model, args.jobs)
    assert plan.served is not None, "a plan of objective served"
    if served_plans.has_plan(section, cluster, model):
        old, new = value(served_plans.served_plan(section, cluster, model), section, base), value(plan, section, base)
        print(f"{section} {cluster} {model}: stored plan {old:.1f}, new plan {new:.1f}", file=sys.stderr)
        if new <= old:
            return
    how = {
        "date": str(datetime.date.today()),
        "seconds": round(plan.seconds),
        "simulations": plan.served.simulations,
        "seeds": sorted({plan.seed, *plan.served.seeds}),
        "helix_kit": hk.__version__,
    }
    served_plans.store_plan(section, plan, how)


def served_rows(args: argparse.Namespace, section: str, cluster: str, model: str) -> str:
    """The published plan, the steps between, and our plan: the lines of one cluster and model."""
    setting = setting_of(cluster, model)
    if args.search:
        store_if_better(args, section, cluster, model)
    plan = served_plans.served_plan(section, cluster, model)
    means: dict[Any, Means]
    if section == "online":
        means = {**online_variants(setting, plan)}
    else:
        steps = comparison.variants(setting, plan, execution="range" if section == "range" else "layerwise")
        means = {name: measured(simulations, args.jobs) for name, simulations in steps.items()}
    return "".join(_lines(section, (cluster, model), means))


def _lines(section: str, row: tuple[str, str], means: dict[Any, Means]) -> Iterator[str]:
    begin = " | ".join(row)
    if section in ("offline", "any"):
        paper = comparison.paper_tokens_per_s(setting_of(*row))
        yield f"| {begin} | the paper's figure | | {paper:.1f} | | | | | |\n"
    published = means["published"]
    best = max(
        (found for name, found in means.items() if not name.startswith("ours")), key=lambda m: m.decode_tokens_per_s
    )
    for name, found in means.items():
        label = LABELS[name] if section != "any" else LABELS[name].replace("our split", "first split")
        times = [f"{found.decode_tokens_per_s / base.decode_tokens_per_s:.2f}" for base in (published, best)]
        if name == "ours":
            label, times[0] = f"**{label}**", f"**{times[0]}**"
        latencies = " | ".join(f"{found.latency_s[phase]:.2f}, {found.p95_s[phase]:.2f}" for phase in PHASES)
        stream = f"{found.first_stream_tokens_per_s:.1f}"
        missed = "; ".join(found.missed(published)) or "none"
        cells = [begin, label, f"{found.decode_tokens_per_s:.1f}", stream, *times, latencies, missed]
        yield "| " + " | ".join(cells) + " |\n"


def plan_row(section: str, cluster: str, model: str) -> str:
    """How the stored plan of a row was found."""
    plan, how = served_plans.served_plan(section, cluster, model), served_plans.found(section, cluster, model)
    stages = longest_path(plan.max_flow, plan.placement)
    seeds = ", ".join(str(seed) for seed in how["seeds"])
    return (
        f"| {section} | {cluster} | {model} | {stages} | {how['seconds']} | {how['simulations']} | {seeds} | "
        f"{how['date']} |\n"
    )


def robustness_rows(args: argparse.Namespace, cluster: str, model: str) -> str:
    """Our plan and the heuristics in worlds with other profiles."""
    plan = served_plans.served_plan("offline", cluster, model)
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
    return served_rows(args, section, cluster, model)


def measured_row(args: argparse.Namespace, section: str, cluster: str, model: str) -> str:
    """The date and this machine, as a row."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (
        f"| {section} | {cluster} | {model} | {datetime.date.today()} | {platform.python_version()} | "
        f"{platform.machine()} | {cores} | {args.jobs} |\n"
    )


def main() -> None:
    """Run the benchmark; print the rows, and put them into the tables of an output file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sections", nargs="*", default=list(SECTIONS), choices=list(SECTIONS))
    parser.add_argument("--clusters", nargs="*", default=list(SETUPS), choices=list(SETUPS))
    parser.add_argument("--models", nargs="*", default=["llama2-70b", "llama-30b"])
    limits = ", ".join(f"{name} {seconds:g}" for name, seconds in TIME_LIMIT_S.items())
    parser.add_argument("--time-limit", type=float, help=f"seconds a search, for every cluster; else {limits}")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--search", action="store_true", help="search for plans first, and store those that are better")
    parser.add_argument("--seed", type=int, default=0, help="seed of the searches")
    parser.add_argument("--window", type=float, help="simulated seconds of a search, from an empty start")
    parser.add_argument("-o", "--output", type=Path, help="document to write; of one that is there only these rows")
    parser.add_argument("--readme", type=Path, help="file whose sentence on served plans is written from the document")
    args = parser.parse_args()
    if args.output and args.output.exists():
        # Before an hour is spent.
        try:
            for part in (*(SECTIONS[s] for s in args.sections), PLANS, MEASURED):
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
                    if section in SEARCHED:
                        text = merged(text, PLANS, plan_row(section, cluster, model), (section, cluster, model))
                    args.output.write_text(merged(text, MEASURED, row, (section, cluster, model)))
    if args.output and args.readme:
        write_sentence(args.readme, args.output.read_text())


if __name__ == "__main__":
    main()
