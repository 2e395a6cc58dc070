"""Where four plans of single24 saturate, and what a sweep costs: docs/saturation-bench.md and its picture.

    python benchmarks/bench_saturation.py                 # a few minutes on two cores

LLaMA-2 70B on 24 machines in one region, requests of the conversation trace, by our runtime's rules. Each plan is
served with the scheduler of its method.
"""

from __future__ import annotations

import argparse
import os
import resource
import textwrap
import time
from pathlib import Path

from document import facts

import helix_kit as hk
from helix_kit.experiments.figures.common.published import published_run
from helix_kit.experiments.figures.common.served_plans import served_plan
from helix_kit.placement.plan import Plan
from helix_kit.sweeps import Sweep

DOCS = Path(__file__).parent.parent / "docs"
PAGE, PICTURE = DOCS / "saturation-bench.md", DOCS / "images" / "saturation.png"
MODEL, SLO = "llama2-70b", hk.SLO(ttft_s=3.0, tpot_s=1.2, at=0.9)
POLICIES = {"ours, most served": "helix", "Helix, published": "helix", "Swarm, published": "swarm",
            "separate pipelines": "helix"}  # fmt: skip
LIMIT_S = 60.0
"""What a sweep of 12 rates should take at most on two cores."""


def plans() -> dict[str, Plan]:
    """Name -> plan: ours as stored, the published ones, and a pipeline for each kind of machine."""
    published = {name: published_run("single", MODEL, name, "online").plans()[0] for name in ("helix", "swarm")}
    return {
        "ours, most served": served_plan("range", "single24", MODEL),
        "Helix, published": published["helix"],
        "Swarm, published": published["swarm"],
        "separate pipelines": hk.plan("single24", MODEL, method="separate"),
    }


def cpu_s() -> float:
    """CPU seconds of this process and its ended workers."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def default_sweep(plan: Plan) -> tuple[Sweep, float, float]:
    """A sweep with all defaults (12 rates, 3 seeds): the curves, seconds, and CPU seconds."""
    hk.sweep(plan, rates=[0.1], seeds=1, warmup_s=1.0, duration_s=10.0)  # loads and compiles
    began_s, used_s = time.perf_counter(), cpu_s()
    found = hk.sweep(plan, slo=SLO)
    return found, time.perf_counter() - began_s, cpu_s() - used_s


def swept() -> tuple[Sweep, float, float]:
    """All plans at the rates of the first, with the seconds and CPU seconds of the first plan's sweep."""
    named = plans()
    first = next(iter(named))
    whole, took_s, used_s = default_sweep(named[first])
    rates = [row["rate_per_s"] for row in next(iter(whole.curves.values())).rows]
    window = {name: whole.facts[name] for name in ("warmup_s", "duration_s")}
    points = [{**point, "plan": first} for point in whole.points]
    for name, plan in list(named.items())[1:]:
        points += hk.sweep({name: plan}, rates=rates, slo=SLO, policy=POLICIES[name], **window).points
    return Sweep(tuple(points), SLO, whole.facts), took_s, used_s


def page(found: Sweep, took_s: float, used_s: float) -> str:
    """The page."""
    lines = ["| plan | scheduler | stable until, requests/s | knee, requests/s | most output tokens/s | "
             "SLO holds until, requests/s | most goodput, requests/s |", "|---|---|---|---|---|---|---|"]  # fmt: skip
    for name, curve in found.curves.items():

        def shown(value: float | None) -> str:
            return "-" if value is None else f"{value:.2f}"

        most = max(curve.column("output_tokens_per_s"))
        good = curve.max_goodput
        lines.append(
            f"| {name} | {POLICIES[name]} | {shown(curve.stable_until_per_s)} | {shown(curve.knee_per_s)} | "
            f"{most:.0f} | {shown(curve.slo_rate_per_s)} | {shown(good[1] if good else None)} |"
        )
    rates = next(iter(found.curves.values())).column("rate_per_s")
    made = f"`python benchmarks/bench_saturation.py` writes this page ({facts()})."
    setting = (
        f"LLaMA-2 70B on single24, requests of the conversation trace at {len(rates)} rates from {rates[0]:g} to "
        f"{rates[-1]:g} a second, {found.facts['duration_s']:g} s after {found.facts['warmup_s']:g} s of warm-up, "
        f"{len(found.facts['seeds'])} seeds, by our runtime's rules. A plan keeps up to its knee. The SLO is {SLO}."
    )
    published = (
        "The published plans are simulated here with our runtime's batching, which interleaves decodes with parts of "
        "prompts. The figures of the paper's evaluation use the published simulator's rules."
    )
    cost = (
        f"A sweep with all defaults (12 rates, 3 seeds) of the first plan took {took_s:.0f} s and {used_s:.0f} s of "
        f"CPU, with a load of {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores. Two free cores would need about "
        f"{used_s / 2:.0f} s; the aim is {LIMIT_S:g} s."
    )
    picture = "![Saturation curves of four plans on single24](images/saturation.png)"
    parts = [wrapped(made), wrapped(setting), chr(10).join(lines), picture, wrapped(published), "## What a sweep costs",
             wrapped(cost)]  # fmt: skip
    return "\n\n".join(["# Where plans saturate", *parts]) + "\n"


def wrapped(text: str) -> str:
    """A paragraph."""
    return textwrap.fill(text, 128, break_on_hyphens=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    curves, seconds, used = swept()
    PAGE.write_text(page(curves, seconds, used), encoding="utf-8")
    curves.plot().savefig(PICTURE, dpi=110)
    print(PAGE.read_text(encoding="utf-8"))
