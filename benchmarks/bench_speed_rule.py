"""How well T(k) ranks placements: predicted flow against simulated saturation, for both definitions of T(k).

    python benchmarks/bench_speed_rule.py [--cases 12] [--seed 100] [--published] [-o FILE]

Each case is a random cluster of today's cards with a random model (the generator of `bench_users.py`), or with
--published one of the paper's clusters. Its placements are those of the baselines and of the default method under
either definition. Each is simulated by our runtime's rules with a backlog that does not end; what it then serves,
prompt and answer tokens together, is its saturation. The table has the flow that each definition predicts over the
saturation, and the rank correlation (Spearman) within each case.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from bench_users import BASELINES, Case, draw_case
from rule_table import Row, report

import helix_kit as hk
from helix_kit.errors import InfeasibleError
from helix_kit.flow import Placement
from helix_kit.placement.planner import plan_problem
from helix_kit.placement.problem import Problem
from helix_kit.simulator import score
from helix_kit.typical_request import TRACE_LENGTHS

PUBLISHED = tuple((c, m) for c in ("single24", "geo24", "hetero42") for m in ("llama2-70b", "llama-30b"))
RULES = ("published", "machine")
TOKENS, SHORTEST_S, LONGEST_S = 1.5e6, 40.0, 600.0
"""Tokens that a simulation should count, and the limits of its window in simulated seconds."""
WARMUP_SHARE = 0.7
"""Warm-up as a share of the window: prompts fill the caches at first."""
MAX_TOKENS_PER_S = 60_000
"""Placements of a larger flow are left out: they take minutes to simulate."""
HEAD = (
    "| case | model | placement | nodes | saturation | published | machine |",
    "|---|---|---|---:|---:|---:|---:|",
)


def problems(case: Case) -> dict[str, Problem]:
    """The problem under each definition, for requests of the same lengths."""
    return {
        rule: Problem.of(case.cluster.model_copy(update={"throughput": rule}), case.model, lengths=TRACE_LENGTHS)
        for rule in RULES
    }


def placements(case: Case, of: dict[str, Problem], seconds: float) -> Iterator[tuple[str, Placement]]:
    """Distinct placements that keep to the machines' memory."""
    seen: set[tuple[tuple[str, tuple[int, int]], ...]] = set()
    for method in (*BASELINES, *RULES):
        try:
            if method in of:
                plan = plan_problem(of[method], time_limit_s=seconds, prove=False)
            else:
                plan = hk.plan(*case, method=method, prove=False)
        except InfeasibleError:
            continue
        key = tuple(sorted(plan.placement.items()))
        if key not in seen and of["machine"].holds(plan.placement):
            seen.add(key)
            yield f"plan, {method} rule" if method in of else method, plan.placement


def saturation(problem: Problem, placement: Placement) -> float:
    """Tokens/s, prompt and answer together, that a placement serves in the simulator when requests always wait."""
    flow = problem.max_flow(placement, split="balanced")
    window_s = min(LONGEST_S, max(SHORTEST_S, TOKENS / max(flow.tokens_per_s, 1.0)))
    served = score((problem, placement, flow), execution="range", duration_s=window_s, warmup_s=WARMUP_SHARE * window_s)
    answers_per_s = served.decode_steps / served.window_s / (TRACE_LENGTHS.output_tokens - 1)
    return answers_per_s * TRACE_LENGTHS.tokens


def cases(first: int, count: int, published: bool) -> Iterator[Case]:
    """Random cases from the seed `first` on, or the paper's clusters."""
    if not published:
        yield from (draw_case(seed) for seed in range(first, first + count))
        return
    for cluster, model in PUBLISHED:
        yield Case(hk.Cluster.preset(cluster), hk.Model.preset(model))


def rows_of(case: Case, seconds: float) -> Iterator[Row]:
    """The rows of one case."""
    of = problems(case)
    for name, placement in placements(case, of, seconds):
        flows = {rule: of[rule].max_flow(placement).tokens_per_s for rule in RULES}
        if not 0 < flows["machine"] <= MAX_TOKENS_PER_S:
            continue
        served = saturation(of["machine"], placement)
        if served > 0:
            yield Row(case.cluster.name, case.model.name, name, len(placement), served, flows)


def main() -> None:
    """Run the benchmark and print, or write, the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=12)
    parser.add_argument("--seed", type=int, default=100, help="seed of the first case; the others follow")
    parser.add_argument("--time-limit", type=float, default=3.0, help="seconds for each plan")
    parser.add_argument("--published", action="store_true", help="the paper's clusters in place of random ones")
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    chosen = cases(args.seed, args.cases, args.published)
    report(HEAD, (row for case in chosen for row in rows_of(case, args.time_limit)), args.output)


if __name__ == "__main__":
    main()
