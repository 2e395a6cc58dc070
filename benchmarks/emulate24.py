"""The published cluster as real processes on this machine: every method of section 6.3, beside the simulator.

    python benchmarks/emulate24.py [--models llama2-70b[,llama-30b]] [--methods helix,swarm,separate]
                                   [--modes offline,online] [--time-scale S] [-o docs/emulation.md]

Each machine of the published single-cluster evaluation becomes a worker process that holds its layers of a stand-in for
the model: all 80 layers of LLaMA-2 70B, with next to no arithmetic. Its steps are padded to the machine's profile, and
its messages take the time that the real activations need on the published links and network cards, all stretched by
one time scale. Scheduling (the published placement, flow, policy and stream of requests), batching, KV pages, routing
and messages are real; the speed of machines and links is declared. The same requests are simulated with the rules of
our runtime (`range`) over the same window.

A run in which more than 2 % of the steps came late does not count: it is repeated at twice the scale. Unless given, the
scale is chosen from the number of steps, so that the workers take a quarter of the cores. Finished runs are kept in a
folder: a command that was stopped goes on where it was. When all are there they move to `data/measured/single24`, from
where the figure takes them.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import helix_kit as hk
from helix_kit import _files
from helix_kit.cli.shared import Status
from helix_kit.experiments.evaluate.published import cases, measure
from helix_kit.experiments.figures.real_workers import measurements
from helix_kit.runtime.device_facts import device_name

MEASURED = _files.data_dir() / "measured" / "single24"
NAMES = {"decode_tokens_per_s": "decode tokens/s", "prompt_latency_p50_s": "prompt latency p50, s",
         "decode_latency_p50_s": "decode latency p50, s"}  # fmt: skip


def row_of(one: dict[str, Any]) -> str:
    """A row of the document's table."""
    cells = [one["model"], one["mode"], one["method"]]
    for found in one["differences"]:
        metric = found["metric"]
        cells.append(f"{one['simulated'][metric]:.3g}")
        cells.append(f"{one['served'][metric]:.3g}")
        cells.append(f"{found['share']:+.1%} ({found['low']:+.1%} to {found['high']:+.1%})")
    return f"| {' | '.join(cells)} |"


def document(found: list[dict[str, Any]], command: str) -> str:
    """The document from all measurements."""
    heads = [f"{name}: {what}" for name in NAMES.values() for what in ("simulated", "workers", "difference")]
    run = [
        f"| {one['model']} | {one['mode']} | {one['method']} | {one['workers']} | {one['time_scale']:g} "
        f"| {one['window_s'][0]:g} to {one['window_s'][1]:g} | {one['requests']} | {one['finished']} | {one['steps']} "
        f"| {one['late_steps_share']:.2%} | {one['cpu_ms_per_step']:.2f} | {one['seconds'] / 60:.1f} |"
        for one in found
    ]
    return f"""# The published cluster as real processes
Written by `{command}`; see that file for what is real and what is declared. The figure is
[real-single-cluster](../figures/real-single-cluster.png).

## Workers beside the simulation
The simulation has our runtime's rules (`range`), the same requests and the same window. Differences are shares of the
simulated value, with bootstrap intervals of 95 % confidence over 30 blocks of the window.

| model | mode | method | {" | ".join(heads)} |
|{"---|" * (3 + len(heads))}
{chr(10).join(row_of(one) for one in found)}

## The runs
Measured on {device_name("cpu")} ({found[0]["cores"]} cores). The window is in emulated seconds. A step is late when it
takes more than 1.02 times its profile's time; a run with over 2 % of late steps does not count. The
CPU time of a step is that of the workers, messages included.

| model | mode | method | workers | time scale | window, s | requests | finished | steps | late | ms/step | minutes |
|---|---|---|---|---|---|---|---|---|---|---|---|
{chr(10).join(run)}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", default="llama2-70b")
    parser.add_argument("--methods", default="helix,swarm,separate")
    parser.add_argument("--modes", default="offline,online")
    parser.add_argument("--time-scale", type=float, help="the first to try; chosen unless given")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("out", "emulate24"), help="where finished runs are kept")
    parser.add_argument("-o", "--output", type=Path, help="document to write, e.g. docs/emulation.md")
    options = parser.parse_args()
    wanted = cases(options.models.split(","), options.methods.split(","), options.modes.split(","))
    began_s, failed = time.monotonic(), []
    with Status("Emulating", quiet=False) as show:
        for index, case in enumerate(wanted):

            def say(what: str, start: str = f"{index + 1} of {len(wanted)}, {case.name}") -> None:
                show(f"{start}: {what}, {(time.monotonic() - began_s) / 60:.0f} min so far")

            try:
                ran = measure(case, options.folder, say, seed=options.seed, time_scale=options.time_scale)
                print(f"{case.name}: {'measured' if ran else 'kept'}", flush=True)
            except hk.HelixKitError as error:
                failed.append(case.name)
                print(f"{case.name}: {error}", flush=True)
    if failed:
        sys.exit(f"not measured: {', '.join(failed)}; the same command tries them again")
    MEASURED.mkdir(parents=True, exist_ok=True)
    for case in wanted:
        (options.folder / f"{case.name}.json").replace(MEASURED / f"{case.name}.json")
    found = measurements()
    if options.output:
        options.output.write_text(document(found, f"python {' '.join(sys.argv)}"), encoding="utf-8")


if __name__ == "__main__":
    main()
