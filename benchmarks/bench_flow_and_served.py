"""What single machines and pipelines serve at saturation, beside the flow that T(k) gives them.

    python benchmarks/bench_flow_and_served.py [--cases 120] [--seed 7000] [-o FILE]

Each case is drawn with a seed: one machine or a pipeline of up to 16, of one or two kinds of cards, a dense model or
one with experts, and mean lengths from prompt-heavy to decode-heavy. Layers are divided by memory bandwidth, as far as
memory allows, so that the placement does not depend on T(k). Links are fast. A steady simulation by our runtime's rules
says what is served, prompt and answer tokens together.

The column `step` is the mean time of a step of the busiest machine over that of a step with its mean prompt tokens and
mean decodes. It is 1 where all steps are alike. It is lower where steps of prompts alternate with steps of decodes:
such a step reads the weights once, while a step with both reads them twice by the simulator's rule.
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import helix_kit as hk
from helix_kit.errors import InfeasibleError
from helix_kit.flow import Flow, Placement
from helix_kit.placement.problem import Problem
from helix_kit.simulator import Window, steady_score, steady_use
from helix_kit.typical_request import TRACE_LENGTHS, MeanLengths

CARDS = (
    "T4", "V100-16G", "L4", "A10G", "A100-40G", "A100-80G", "H100-80G", "H200-141G", "L40S", "RTX3090", "RTX4090",
    "RTX5090", "B200", "MI300X", "RTXPro6000", "M2Ultra-192G",
)  # fmt: skip
DENSE = ("llama3.1-8b", "llama3.1-70b", "qwen3-8b", "qwen3-32b", "gemma-3-27b", "llama-30b")
EXPERTS = (
    "deepseek-v3", "gpt-oss-120b", "gpt-oss-20b", "mixtral-8x7b", "qwen3-235b-a22b", "qwen3-30b-a3b",
    "qwen3-30b-a3b-int4",
)  # fmt: skip
LENGTHS = (
    TRACE_LENGTHS, TRACE_LENGTHS, MeanLengths(2000, 100), MeanLengths(3000, 40), MeanLengths(150, 800),
    MeanLengths(400, 400), MeanLengths(1000, 20), MeanLengths(60, 300),
)  # fmt: skip
MACHINES = (1, 1, 2, 2, 3, 4, 6, 8, 12, 16)
WINDOW = Window(requests=600, warmup_lives=1.0, lives=1.0, most_tokens=1_200_000)
ABOVE = 1.03
"""A simulation counts as above the flow from here on: steady runs of one plan differ by up to 3 %."""
HEAD = (
    "| seed | model | machines | in / out | flow | served | served / flow | step |",
    "|---:|---|---|---|---:|---:|---:|---:|",
)


class Row(NamedTuple):
    """One case: the line of the table, what is served over the flow, and whether the model has experts."""

    text: str
    ratio: float
    has_experts: bool


def draw(seed: int) -> tuple[Problem, Placement]:
    """A random chain of machines that holds a random model."""
    rng = random.Random(seed)
    while True:
        model = hk.Model.preset(rng.choice(EXPERTS + DENSE))
        kinds = rng.sample(CARDS, rng.choice((1, 1, 2)))
        count = rng.choice(MACHINES)
        if len(kinds) > count:
            continue
        first = count if len(kinds) == 1 else rng.randint(1, count - 1)
        lengths = rng.choice(LENGTHS)
        fields = {
            "name": f"chain-{seed}",
            "nodes": [{"gpu": g, "count": n} for g, n in zip(kinds, (first, count - first), strict=False)],
            "network": {"within_region": {"bandwidth_gbps": 200, "latency_ms": 0.05}},
        }
        try:
            problem = Problem.of(hk.Cluster.model_validate(fields), model, lengths=lengths)
        except InfeasibleError:
            continue
        placement = chain(problem)
        if placement and problem.holds(placement) and problem.max_flow(placement).tokens_per_s > 0:
            return problem, placement


def chain(problem: Problem) -> Placement:
    """All layers on all machines in file order, in proportion to memory bandwidth; empty where they do not fit."""
    cluster = problem.cluster
    held = {node.name: min(1, problem.max_layers(node.name)) for node in cluster.nodes}
    speed = {node.name: cluster.gpu(node.gpu).memory_bandwidth_gb_per_s for node in cluster.nodes}
    if not all(held.values()) or len(held) > problem.num_layers:
        return {}
    while sum(held.values()) < problem.num_layers:
        able = [name for name in held if held[name] < problem.max_layers(name)]
        if not able:
            return {}
        held[min(able, key=lambda name: (held[name] + 1) / speed[name])] += 1
    placement, start = {}, 0
    for name, layers in held.items():
        placement[name] = (start, start + layers)
        start += layers
    return placement


def measured(seed: int) -> Row | None:
    """The row of one case; None where the simulation measured nothing."""
    problem, placement = draw(seed)
    flow = problem.max_flow(placement, split="balanced")
    plan, lengths = (problem, placement, flow), problem.lengths
    score, use = steady_score(plan, window=WINDOW, seed=1), steady_use(_plan(*plan), window=WINDOW, seed=1)
    if not use or score.decode_tokens_per_s <= 0:
        return None
    served = score.decode_tokens_per_s / (lengths.output_tokens - 1) * lengths.tokens
    name = max(use, key=lambda n: use[n].busy)
    busiest, (start, end) = use[name], placement[name]
    profile = problem.profiles[problem.kind_of[name]].of_range(start, end)
    mixed_ms = profile.step_ms(busiest.prefill_tokens / busiest.steps, busiest.decode_tokens / busiest.steps)
    step_ms = 1e3 * busiest.busy * score.window_s / busiest.steps / (end - start)
    machines = " + ".join(f"{n} {kind}" for kind, n in problem.cluster.kind_counts.items())
    ratio = served / flow.tokens_per_s
    text = (
        f"| {seed} | {problem.model.name} | {machines} | {lengths.input_tokens:.0f} / {lengths.output_tokens:.0f} | "
        f"{flow.tokens_per_s:,.0f} | {served:,.0f} | {ratio:.2f} | {step_ms / mixed_ms:.2f} |"
    )
    return Row(text, ratio, problem.model.name in EXPERTS)


def _plan(problem: Problem, placement: Placement, flow: Flow) -> hk.Plan:
    return hk.Plan.from_placement(problem, dict(placement), method="chain", flow=flow)


def summary(name: str, ratios: list[float]) -> str:
    """How far what is served lies from the flow."""
    above = sum(ratio > ABOVE for ratio in ratios) / len(ratios)
    return (
        f"{name}, {len(ratios)} cases: served over flow {statistics.mean(ratios):.2f} on average, median "
        f"{statistics.median(ratios):.2f}, from {min(ratios):.2f} to {max(ratios):.2f}; more than {ABOVE - 1:.0%} "
        f"above the flow in {above:.0%}."
    )


def rows(first: int, count: int) -> Iterator[Row]:
    """The rows that could be measured."""
    for seed in range(first, first + count):
        row = measured(seed)
        if row is not None:
            yield row


def main() -> None:
    """Run the benchmark and print, or write, the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=120)
    parser.add_argument("--seed", type=int, default=7000, help="seed of the first case; the others follow")
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    print("\n".join(HEAD), flush=True)
    found = []
    for row in rows(args.seed, args.cases):
        found.append(row)
        print(row.text, flush=True)
    groups = {
        "All": found,
        "Dense": [row for row in found if not row.has_experts],
        "Experts": [row for row in found if row.has_experts],
    }
    text = "\n".join(summary(name, [r.ratio for r in part]) for name, part in groups.items() if part)
    print("\n" + text)
    if args.output:
        args.output.write_text("\n".join([*HEAD, *(r.text for r in found)]) + "\n\n" + text + "\n")


if __name__ == "__main__":
    main()
