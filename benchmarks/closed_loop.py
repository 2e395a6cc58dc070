"""How close the simulator is to the runtime: measure, plan, simulate, then serve the same requests for real.

    python benchmarks/closed_loop.py [--rate 0.8] [--duration 40] [--time-scale 1] [--shipped] [-o FILE] [--json FILE]

This machine is measured with SmolLM2-135M, and its profile is slowed down to the three kinds of the `laptop` preset
(`--shipped` takes the tables of the package instead). The plan from these profiles is simulated and served, with the
same requests at the same times; throughput and median latencies are compared. Steps that take longer than their profile
(overruns) spoil the comparison: their share is printed, and a run with more than 2 % of them is marked as disturbed. On
a busy machine `--time-scale 4` makes every emulated step four times as long, and requests four times as rare.
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from typing import Any

from document import facts, latency_percentiles, ratio_table, write_json, write_section

TOLERANCE = 0.10
MAX_OVERRUN_SHARE = 0.02


def measured_profiles(weights: Path) -> dict[str, Any]:
    """Profiles of the laptop's kinds from a fresh measurement, by the script that made the shipped ones."""
    from helix_kit import Model
    from helix_kit.runtime.profile import emulated, measure

    path = Path(__file__).resolve().parent.parent / "examples" / "measure_laptop_profile.py"
    spec = importlib.util.spec_from_file_location("measure_laptop_profile", path)
    assert spec and spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    model = Model.preset("SmolLM2-135M")
    base = measure(weights, kind="CPU", model=model, layers=15, repeats=15, memory_gb=script.MEMORY_GB)
    kinds = emulated(base, script.FACTORS, script.MAX_LAYERS)
    return {kind.kind: kind.profile() for kind in kinds}


def stretched(profile: Any, scale: float) -> Any:
    """The profile of a machine that is `scale` times slower."""
    curves = {
        name: curve.model_copy(update={"y": tuple(y * scale for y in curve.y)})
        for name in ("prefill_ms_per_layer", "decode_ms_per_layer")
        for curve in [getattr(profile, name)]
    }
    return profile.model_copy(update=curves)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rate", type=float, default=0.8, help="requests/s")
    parser.add_argument("--duration", type=float, default=40.0, help="s")
    parser.add_argument("--input-tokens", type=int, default=64)
    parser.add_argument("--output-tokens", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--time-scale", type=float, default=1.0)
    parser.add_argument("--shipped", action="store_true", help="use the shipped profile")
    parser.add_argument("-o", "--output", type=Path, help="document whose section on this is written anew")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    import helix_kit as hk
    from helix_kit.experiments.figures.closed_loop import output_tokens_per_s, simulate_to_the_end
    from helix_kit.profiles import shipped_profiles
    from helix_kit.runtime.weights.demo import demo_weights

    weights = demo_weights()
    profiles = shipped_profiles("SmolLM2-135M") if options.shipped else measured_profiles(weights)
    scale = options.time_scale
    profiles = {kind: stretched(profile, scale) for kind, profile in profiles.items()}
    plan = hk.plan(hk.Cluster.preset("laptop"), hk.Model.preset("SmolLM2-135M"), profiles=profiles, time_limit_s=20)
    workload = hk.Workload.poisson(
        options.rate / scale,
        options.duration * scale,
        input_tokens=options.input_tokens,
        output_tokens=options.output_tokens,
        seed=options.seed,
    )
    simulated = simulate_to_the_end(plan, workload)
    with hk.serve(plan, weights) as engine:
        real = engine.replay(workload)
    share = real.facts["overrun_share"]

    pairs = {"output tokens/s": (output_tokens_per_s(simulated), output_tokens_per_s(real))}
    expected, measured = (latency_percentiles(run.summary()) for run in (simulated, real))
    pairs |= {label: (expected[label], measured[label]) for label in expected}
    lines = ratio_table(pairs, "simulated", "real")
    print(f"{len(workload)} requests, plan {plan.flow_tokens_per_s:.0f} tokens/s, {plan.placement}")
    print("\n".join(lines))
    judged = ("output tokens/s", "prompt latency p50, s", "decode latency p50, s")
    close = all(abs(pairs[label][1] / pairs[label][0] - 1) <= TOLERANCE for label in judged)
    disturbed = share > MAX_OVERRUN_SHARE
    late = f"steps that took longer than their profile: {share:.1%} of {real.facts['steps']}"
    verdict = ("within 10 %" if close else "NOT within 10 %") + (" (disturbed run)" if disturbed else "")
    print(late)
    print(verdict)
    if options.output:
        scaled = "" if scale == 1 else f" --time-scale {scale:g}"
        about = (
            f"`python benchmarks/closed_loop.py{scaled}`; {facts('torch', 'transformers')}\n\n"
            f"This machine measured with SmolLM2-135M, slowed to the kinds of the `laptop` preset, planned, simulated\n"
            f"and served: {len(workload)} requests at the same times, plan of {plan.flow_tokens_per_s:.0f} tokens/s."
        )
        verdict_line = f"Throughput, median prompt and median decode latency: {verdict}; {late}."
        write_section(options.output, "Simulated and real", "\n".join([about, "", *lines, "", verdict_line]))
    results = {"simulated and real": pairs, "overrun_share": share, "time_scale": scale, "close": close}
    write_json(options.json, results)
    return 0 if close else 1


if __name__ == "__main__":
    raise SystemExit(main())
