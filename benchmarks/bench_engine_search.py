"""What the search for a served plan finds by three step models, and what each of its plans serves by the others.

    python benchmarks/bench_engine_search.py [--simulations 8] [-o FILE]

The judges are the published rules (`layerwise`), our runtime (`range`), and an engine of replicas (`vllm-0.15`). Each
search ends after so many simulations, so that its result does not depend on the machine's speed. Its plan then serves
a backlog under each judge. An engine of replicas runs only plans whose pipelines share no node: the others have a dash.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import helix_kit as hk
from helix_kit.errors import HelixKitError
from helix_kit.placement.problem import Problem
from helix_kit.profiles.engines import load_engine
from helix_kit.simulator import score
from helix_kit.typical_request import TRACE_LENGTHS

JUDGES = ("layerwise", "range", "vllm-0.15")
CASES = (("laptop", "SmolLM2-135M", JUDGES[:2]), ("single24", "llama2-70b", JUDGES))
"""Cluster, model and judges: the laptop's workers are processes on CPUs, which no other engine runs on."""
WINDOW_S, WARMUP_S = 600.0, 120.0
HEAD = (
    f"| cluster | searched by | nodes used | longest way | {' | '.join(f'{judge}, tokens/s' for judge in JUDGES)} |",
    f"|---|---|---:|---:|{'---:|' * len(JUDGES)}",
)


def searched(cluster: str, model: str, judge: str, simulations: int) -> hk.Plan:
    """The plan that a search finds by one judge."""
    how = {"execution": judge} if judge in ("layerwise", "range") else {"engine": judge}
    return hk.plan(
        cluster, model, objective="served", max_simulations=simulations, time_limit_s=600.0, seed=0, jobs=1, **how
    )


def served(plan: hk.Plan, judge: str) -> str:
    """Decode tokens/s of a backlog; a dash where the judge cannot run the plan."""
    engine = None if judge in ("layerwise", "range") else load_engine(judge)
    try:
        problem = Problem.of(plan.cluster, plan.model, lengths=TRACE_LENGTHS, engine=engine)
        flow = problem.max_flow(plan.placement, split="balanced")
        found = score(
            (problem, plan.placement, flow),
            execution="layerwise" if judge == "layerwise" else "range",
            duration_s=WINDOW_S,
            warmup_s=WARMUP_S,
        )
    except HelixKitError as error:
        print(f"  {judge}: {error}", flush=True)
        return "-"
    return f"{found.decode_tokens_per_s:,.1f}"


def main() -> None:
    """Run the searches and print, or write, the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=8, help="of each search")
    parser.add_argument("--cases", nargs="+", default=[case[0] for case in CASES], help="clusters")
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    lines = list(HEAD)
    for cluster, model, judges in CASES:
        if cluster not in args.cases:
            continue
        for judge in judges:
            began = time.process_time()
            try:
                plan = searched(cluster, model, judge, args.simulations)
            except HelixKitError as error:
                print(f"{cluster}, {judge}: {error}", flush=True)
                continue
            print(f"{cluster}, {judge}: {time.process_time() - began:.0f} CPU s, {plan.placement}", flush=True)
            longest = max((len(stages) for stages, _ in plan.pipelines), default=0)
            figures = [served(plan, other) if other in judges else "-" for other in JUDGES]
            cells = [cluster, judge, str(len(plan.placement)), str(longest), *figures]
            lines.append(f"| {' | '.join(cells)} |")
            print(lines[-1], flush=True)
    if args.output:
        args.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
