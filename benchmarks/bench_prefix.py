"""Prefix caches and the policy `prefix` on conversations in Mooncake's format, on the 24 machines of the paper.

    python benchmarks/bench_prefix.py [-o docs/prefix-bench.md] [--trace FILE] [--quick]

Without a trace the conversations are drawn, with the mean lengths that are known of Mooncake's conversation trace
(12,035 tokens in, 343 out), written in its format, and read from there: what prompts share counts in blocks of 512
tokens. Each policy serves the same requests, with the cache and without.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from pathlib import Path

POLICIES = ("helix", "shortest_queue", "random", "prefix")
TURNS, SYSTEM_TOKENS, OUTPUT_TOKENS, THINK_S = 3.0, 500, 343, 60.0
QUESTION_TOKENS, MEAN_TOKENS = 3600, 12_378
"""With these the mean prompt has about 12,000 tokens, as Mooncake's, and prompt and answer `MEAN_TOKENS`."""
HEAD = """# Prefix caches: conversations by policy

Written by `make bench-prefix` (`benchmarks/bench_prefix.py`); it counts no seconds of the machine, so the same command
gives the same numbers. Llama 3.1 8B on the 24 machines of the paper (`single24`), flow plan, `range` execution. The
first rate is 40 % of what the flow serves without a cache, the second 80 %. Requests arrive for 15 minutes. TTFT, TPOT
and E2E are means in s; *served* is the share of requests that ended within a minute after that.
"""


def conversations(rate_per_s: float, duration_s: float, seed: int, folder: Path):
    """Conversations through a file in Mooncake's format."""
    from helix_kit import Workload

    drawn = Workload.conversations(
        rate_per_s / TURNS, duration_s, turns=TURNS, system_tokens=SYSTEM_TOKENS, question_tokens=QUESTION_TOKENS,
        output_tokens=OUTPUT_TOKENS, think_s=THINK_S, seed=seed,
    )  # fmt: skip
    path = folder / f"conversations-{rate_per_s:g}.jsonl"
    drawn.limited(max_input=40_000).to_mooncake(path)
    return Workload.from_trace(path, time_unit="ms")


def most_hits(workload) -> float:
    """Hit rate of one cache that keeps everything and knows each prompt at once, in blocks of 16 tokens."""
    from helix_kit.workload.prefixes import block_keys

    keys, seen, found = block_keys(list(workload), 16), set(), 0
    for request, first, count in zip(workload, keys.first, keys.blocks, strict=True):
        mine = keys.keys[first : first + count].tolist()
        hits = next((i for i, key in enumerate(mine) if key not in seen), len(mine))
        found += 16 * min(hits, (request.input_tokens - 1) // 16)
        seen.update(mine)
    return found / sum(r.input_tokens for r in workload)


def described(rate: float, workload) -> str:
    """How long the requests are, and what a cache could hold."""
    tokens_in = sum(r.input_tokens for r in workload) / len(workload)
    tokens_out = sum(r.output_tokens for r in workload) / len(workload)
    return (
        f"At {rate:g} requests/s: {len(workload):,} requests, {tokens_in:,.0f} tokens in and {tokens_out:.0f} out on "
        f"average. One cache that keeps everything would hold {most_hits(workload):.0%} of the prompts."
    )


def row(rate: float, policy: str, cache: bool, run) -> str:
    """A row of the table."""
    summary = run.summary()
    ttft, tpot, e2e = (summary[key]["mean"] for key in ("ttft_s", "tpot_s", "e2el_s"))
    cells = [f"{rate:g}", policy, "on" if cache else "off", f"{summary['prefix_hit_rate']:.1%}"]
    cells += [f"{ttft:.1f}", f"{tpot:.2f}", f"{e2e:.0f}", f"{summary['finished'] / summary['requests']:.0%}"]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, help="write the table to this file")
    parser.add_argument("--trace", type=Path, help="a trace with hash_ids in place of drawn conversations")
    parser.add_argument("--loads", type=float, nargs="+", default=[0.4, 0.8], help="shares of the plan's flow")
    parser.add_argument("--quick", action="store_true", help="one load, five minutes")
    options = parser.parse_args()

    from helix_kit import Cluster, Model, Workload, plan, simulate
    from helix_kit.simulator import BatchingOptions

    made = plan(Cluster.preset("single24"), Model.preset("llama3.1-8b"), objective="flow", deterministic=True)
    loads, duration_s = (options.loads[:1], 300.0) if options.quick else (options.loads, 900.0)
    head = "| requests/s | policy | cache | hit rate | TTFT | TPOT | E2E | served |"
    lines, facts = [head, "|---:|---|---|---:|---:|---:|---:|---:|"], []
    with tempfile.TemporaryDirectory() as folder:
        for load in loads:
            rate = round(load * made.flow_tokens_per_s / MEAN_TOKENS, 3)
            if options.trace is not None:
                workload = Workload.from_trace(options.trace).scaled(rate)
            else:
                workload = conversations(rate, duration_s, 0, Path(folder))
            facts.append(described(rate, workload))
            for cache, policy in itertools.product((False, True), POLICIES):
                began_s = time.process_time()
                run = simulate(made, workload, policy=policy, options=BatchingOptions(prefix_cache=cache))
                lines.append(row(rate, policy, cache, run))
                print(lines[-1], f"({time.process_time() - began_s:.1f} CPU s)", flush=True)
    text = "\n".join([HEAD, " ".join(facts), "", *lines, ""])
    if options.output is not None:
        options.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
