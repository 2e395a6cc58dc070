"""How close the simulator is to the runtime with one worker that holds all layers, with two, and with four.

    chrt --rr 10 python benchmarks/closed_loop_workers.py [--workers 1,2,4] [--loads 0.3,0.6,0.9]
                                                          [--time-scale 3,3,4] [--requests 52,160,240] [-o FILE]

Workers of one emulated kind hold equal shares of SmolLM2-135M. Each serves the same requests at the same times as the
simulator, at three shares of the plan's flow. The table has output tokens/s, and the means of the time to the first
token and of the time between tokens, simulated over served. Steps that take longer than their profile are counted:
their share says whether other programs had the cores. `--time-scale 4` makes every step four times as long, so that
messages and a busy machine matter less; 1 shows the most of the runtime's own time. Options with one number for each
of `--workers` may also have one for all.

The workers are meant to be machines of their own, but they compute on the cores of this one. A step with a prompt
computes for 20 to 30 ms. While two workers do so on two cores, a message to a third one would wait. Under
`chrt --rr 10` the workers compute at the priority below that of messages, and other programs do not matter.

Near saturation, requests that come a moment earlier or later share other steps. So each load is simulated 13 times,
with arrivals as they are and moved by up to 10 ms times the scale, and the mean counts. The document says how far these
runs are apart, and how far the workers are from the nearest of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from closed_loop import stretched
from document import facts, write_json, write_section

from helix_kit._wording import count_text

KIND, LAYERS, TOLERANCE = "CPU-fast", 30, 0.05
KV_TOKENS_PER_LAYER = 30_000
MOVED_S, MOVED_RUNS = 0.01, 12
"""Further simulations of a load, in which each request comes up to so many seconds later (times the scale)."""
HEAD = (
    "| workers | time scale | load | requests | tokens/s | TTFT | ITL | served tokens/s | served TTFT, s "
    "| served ITL, s | late |",
    "|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
)
MEASURES = ("tokens_per_s", "ttft_s", "itl_s")


def profile_of_all_layers(scale: float) -> Any:
    """The shipped profile of the kind, with room for any number of layers."""
    from helix_kit.profiles import shipped_profiles

    profile = shipped_profiles("SmolLM2-135M")[KIND]
    room = tuple(KV_TOKENS_PER_LAYER * k for k in range(1, LAYERS + 1))
    limits = {name: (getattr(profile, name)[0],) * LAYERS for name in ("prefill_max_requests", "decode_max_requests")}
    return stretched(profile, scale).model_copy(update={"kv_capacity_layer_tokens": room, **limits})


def plan_of(workers: int, scale: float) -> Any:
    """Equal shares of the layers, one after another."""
    import helix_kit as hk

    cluster = hk.Cluster.model_validate(
        {"name": f"{workers}-workers", "nodes": [{"gpu": KIND, "count": workers}],
         "network": {"within_region": {"bandwidth_gbps": 10, "latency_ms": 0.2}}}
    )  # fmt: skip
    problem = hk.Problem.of(cluster, hk.Model.preset("SmolLM2-135M"), {KIND: profile_of_all_layers(scale)})
    edges = [LAYERS * i // workers for i in range(workers + 1)]
    placement = {n.name: (edges[i], edges[i + 1]) for i, n in enumerate(cluster.nodes)}
    return hk.Plan.from_placement(problem, placement, method="equal shares")


def measures_of(run: Any) -> dict[str, float]:
    """Output tokens/s until the last token, and mean latencies in s."""
    times = run.measures()
    speed = len(run.tokens.time_s) / float(run.tokens.time_s.max())
    return {"tokens_per_s": speed, **{name: float(times[name].mean()) for name in MEASURES[1:]}}


def saturation_per_s(plan: Any, options: argparse.Namespace) -> float:
    """Requests/s of a backlog, simulated."""
    import helix_kit as hk

    backlog = hk.Workload.constant(
        rate_per_s=100.0, duration_s=2.0, input_tokens=options.input_tokens, output_tokens=options.output_tokens
    )
    run = hk.simulate(plan, backlog, mode="offline", warmup_s=0.0, duration_s=1e5)
    return len(backlog) / float(run.tokens.time_s.max())


def simulated_measures(plan: Any, workload: Any, time_scale: float) -> list[dict[str, float]]:
    """Measures of simulations: of the workload as it is, then with requests that come up to a moment later."""
    import helix_kit as hk
    from helix_kit.experiments.figures.closed_loop import simulate_to_the_end

    rng, found = np.random.default_rng(0), [measures_of(simulate_to_the_end(plan, workload))]
    for _ in range(MOVED_RUNS):
        moved = [
            (r.arrival_s + rng.uniform(0, MOVED_S * time_scale), r.input_tokens, r.output_tokens) for r in workload
        ]
        found.append(measures_of(simulate_to_the_end(plan, hk.Workload.of(moved))))
    return found


def moved_words(row: dict[str, Any]) -> str:
    """How far the simulations of a load are from their mean, and the workers' distance from the nearest one."""

    def distance(run: dict[str, float]) -> float:
        return max(abs(run[name] / row["served"][name] - 1) for name in MEASURES)

    spans = []
    for name, what in zip(MEASURES, ("tokens/s", "TTFT", "ITL"), strict=True):
        values = np.array([run[name] for run in row["simulated"]])
        spans.append(f"{what} {values.min() / values.mean() - 1:+.1%} to {values.max() / values.mean() - 1:+.1%}")
    nearest = min(distance(run) for run in row["simulated"])
    workers = count_text(row["workers"], "worker")
    return f"- {workers}, load {row['load']:g}: {', '.join(spans)}; nearest run {nearest:.1%}"


def rows(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row for each number of workers and load."""
    import helix_kit as hk
    from helix_kit.runtime.weights.demo import demo_weights

    weights = demo_weights()
    for workers, time_scale, requests in zip(options.workers, options.time_scale, options.requests, strict=True):
        plan = plan_of(workers, time_scale)
        most = saturation_per_s(plan, options)
        with hk.serve(plan, weights) as engine:
            for load in options.loads:
                workload = hk.Workload.poisson(
                    load * most, requests / (load * most), input_tokens=options.input_tokens,
                    output_tokens=options.output_tokens, seed=options.seed,
                )  # fmt: skip
                served = engine.replay(workload)
                real, simulated = measures_of(served), simulated_measures(plan, workload, time_scale)
                yield {
                    "workers": workers, "time_scale": time_scale, "load": load, "requests": len(workload),
                    "late": served.facts["overrun_share"], "simulated": simulated, "served": real,
                    **{name: float(np.mean([run[name] for run in simulated])) / real[name] for name in MEASURES},
                }  # fmt: skip


def table_row(row: dict[str, Any]) -> str:
    """A row of the table."""
    real = row["served"]
    return (
        f"| {row['workers']} | {row['time_scale']:g} | {row['load']:g} | {row['requests']} | "
        f"{' | '.join(f'{row[name]:.3f}' for name in MEASURES)} | {real['tokens_per_s']:.2f} | "
        f"{real['ttft_s']:.3f} | {real['itl_s']:.4f} | {row['late']:.1%} |"
    )


def largest_difference(found: list[dict[str, Any]]) -> float:
    """The largest distance of a ratio from 1."""
    return max(abs(row[name] - 1) for row in found for name in MEASURES)


def listed(numbers: list[float]) -> str:
    """Numbers as they are typed in an option."""
    return ",".join(f"{number:g}" for number in numbers)


def one_each(numbers: list[float], count: int) -> list[float]:
    """One number for each case; a single one holds for all."""
    if len(numbers) not in (1, count):
        raise SystemExit(f"expected one number or {count}, got {listed(numbers)}")
    return numbers * count if len(numbers) == 1 else numbers


def section(found: list[dict[str, Any]], options: argparse.Namespace) -> str:
    """The document's section on these runs."""
    worst = largest_difference(found)
    return "\n".join([
        f"`chrt --rr 10 python benchmarks/closed_loop_workers.py --workers {listed(options.workers)} "
        f"--time-scale {listed(options.time_scale)} --requests {listed(options.requests)}`; {facts('torch')}",
        "", *HEAD, *map(table_row, found), "",
        f"largest difference {worst:.1%}: {'within' if worst <= TOLERANCE else 'NOT within'} {TOLERANCE:.0%}.", "",
        f"Simulations with arrivals moved by up to {1e3 * MOVED_S:g} ms times the time scale, beside their mean:", "",
        *map(moved_words, found),
    ])  # fmt: skip


def main() -> int:
    """Run the benchmark; the exit status says whether all ratios are within the tolerance."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", default="1,2,4")
    parser.add_argument("--loads", default="0.3,0.6,0.9", help="shares of the most that the workers serve")
    parser.add_argument("--requests", default="160", help="requests of each run, about")
    parser.add_argument("--time-scale", default="1")
    parser.add_argument("--input-tokens", type=int, default=64)
    parser.add_argument("--output-tokens", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, help="document whose section on this is written anew")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    for name, kind in {"workers": int, "loads": float, "requests": int, "time_scale": float}.items():
        setattr(options, name, [kind(part) for part in getattr(options, name).split(",")])
    for name in ("requests", "time_scale"):
        setattr(options, name, one_each(getattr(options, name), len(options.workers)))

    found = []
    print("\n".join(HEAD), flush=True)
    for row in rows(options):
        found.append(row)
        print(table_row(row), flush=True)
    text = section(found, options)
    print(text.split(table_row(found[-1]), 1)[1])
    if options.output:
        write_section(options.output, "One, two and four workers", text)
    write_json(options.json, found)
    return 0 if largest_difference(found) <= TOLERANCE else 1


if __name__ == "__main__":
    raise SystemExit(main())
