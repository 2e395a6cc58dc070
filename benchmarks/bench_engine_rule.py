"""How well an engine's T(k) ranks plans: predicted flow against what the simulated engine serves with a backlog.

    python benchmarks/bench_engine_rule.py [--cases 12] [--seed 100] [--engine vllm-0.15] [-o FILE]

Each case is a random cluster of today's cards with a random model (the generator of `bench_users.py`). Its plans are
the sets of replicas with at most 1, 2, 3, ... stages. The table has the flow over the saturation, by T(k) of the
engine's step model and by the rule for our runtime; then the spread and the rank correlation (Spearman) in each case.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from bench_users import Case, draw_case
from rule_table import Row, report

from helix_kit.errors import InfeasibleError
from helix_kit.placement.problem import Problem
from helix_kit.placement.replicas import best_replicas
from helix_kit.profiles.engines import load_engine
from helix_kit.simulator import score
from helix_kit.typical_request import TRACE_LENGTHS

RULES = ("engine", "machine")
TOKENS, SHORTEST_S, LONGEST_S, WARMUP_S = 1.5e6, 30.0, 300.0, 60.0
MAX_STAGES = 6
HEAD = (
    "| case | model | stages | nodes | saturation | engine | machine |",
    "|---|---|---:|---:|---:|---:|---:|",
)


def rows_of(case: Case, engine: str) -> Iterator[Row]:
    """The rows of one case; none where the engine cannot hold the model."""
    cluster = case.cluster.model_copy(update={"throughput": "machine"})
    try:
        problem = Problem.of(cluster, case.model, lengths=TRACE_LENGTHS, engine=load_engine(engine))
        plain = Problem.of(cluster, case.model, lengths=TRACE_LENGTHS)
    except InfeasibleError:
        return
    seen = set()
    for stages in range(1, MAX_STAGES + 1):
        placed = best_replicas(problem, max_stages=stages)
        key = placed and tuple(sorted(placed.placement.items()))
        if placed is None or key in seen:
            continue
        seen.add(key)
        flow = problem.max_flow(placed.placement, links=placed.links, split="balanced")
        window_s = min(LONGEST_S, max(SHORTEST_S, TOKENS / flow.tokens_per_s))
        found = score(
            (problem, placed.placement, flow), execution="range", duration_s=window_s, warmup_s=WARMUP_S + window_s
        )
        served = found.decode_steps / found.window_s / (TRACE_LENGTHS.output_tokens - 1) * TRACE_LENGTHS.tokens
        if served > 0:
            other = plain.max_flow(placed.placement, links=placed.links).tokens_per_s
            flows = {"engine": flow.tokens_per_s, "machine": other}
            yield Row(case.cluster.name, case.model.name, str(stages), len(placed.placement), served, flows)


def main() -> None:
    """Run the benchmark and print, or write, the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=12)
    parser.add_argument("--seed", type=int, default=100, help="seed of the first case; the others follow")
    parser.add_argument("--engine", default="vllm-0.15")
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    rows = (row for i in range(args.cases) for row in rows_of(draw_case(args.seed + i), args.engine))
    report(HEAD, rows, args.output)


if __name__ == "__main__":
    main()
