"""How our simulator agrees with the published one and with the published prototype: writes ``docs/fidelity.md``.

``python -m helix_kit.experiments.machinery.fidelity`` runs every published simulation under the published rules, from
the data in the repository alone.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helix_kit._files import data_dir
from helix_kit.experiments.figures.common.metrics import SPEED
from helix_kit.experiments.figures.common.published import PublishedRun, published_runs

HASH_SEED_ROWS = {
    ("hetero42", "helix", "offline"): "637.1 to 645.6",
    ("hetero42", "helix", "online"): "",
    ("placement", "petals", "offline"): "66.6 to 68.3",
}
"""(setup, method, mode) of runs whose published values depend on PYTHONHASHSEED, through the flow split, and the range
of their throughput over seeds where it is known."""


@dataclass(frozen=True)
class Row:
    """A published value and ours."""

    run: PublishedRun
    metric: str
    published: float
    ours: float

    @property
    def error(self) -> float:
        """Relative difference."""
        return self.ours / self.published - 1

    @property
    def decimals(self) -> int:
        """Decimals of the published value."""
        return 1 if self.metric == SPEED else 2

    @property
    def error_beyond_rounding(self) -> float:
        """Relative difference beyond what the published rounding explains."""
        half = 0.5 * 10**-self.decimals
        return max(0.0, abs(self.ours - self.published) - half * (1 + 1e-9)) / self.published

    @property
    def depends_on_hash_seed(self) -> bool:
        """Whether the published value depends on the hash seed of the Python process."""
        return (self.run.setup, self.run.method, self.run.mode) in HASH_SEED_ROWS

    @property
    def range_over_seeds(self) -> str:
        """The mark of such a run in the table, with the range if it is known."""
        known = HASH_SEED_ROWS.get((self.run.setup, self.run.method, self.run.mode))
        return "" if known is None else f" * ({known})" if known else " *"


def rows_of(run: PublishedRun, summary: dict[str, Any]) -> Iterator[Row]:
    """A row for every published metric of a simulation."""
    for metric, value in run.values("simulation").items():
        ours = metric_of(summary, metric)
        if ours is not None:
            yield Row(run, metric, value, ours)


def metric_of(summary: dict[str, Any], metric: str) -> float | None:
    """Our value of a published metric; None for metrics that a simulation does not have."""
    if metric == SPEED:
        return float(summary[metric])
    if "_latency_" in metric:
        phase, _, quantile, _ = metric.split("_")
        return float(summary[f"{phase}_latency_s"][quantile])
    return None


def report(summaries: list[tuple[PublishedRun, dict[str, Any]]]) -> str:
    """The whole of ``docs/fidelity.md``."""
    rows = [row for run, summary in summaries for row in rows_of(run, summary)]
    throughput = [r for r in rows if r.metric == SPEED]
    latency = [r for r in rows if "latency" in r.metric]
    plain = [r for r in rows if not r.depends_on_hash_seed]
    marked = {r.run.name for r in rows if r.depends_on_hash_seed}

    def worst(of: list[Row]) -> str:
        return _percent(max(r.error_beyond_rounding for r in of if r in plain))

    def exact(of: list[Row]) -> str:
        return f"{sum(r.error_beyond_rounding == 0 for r in of)} of {len(of)}"

    lines = [
        "# Fidelity: our simulator against the published one",
        "",
        "Made by `make fidelity` (`python -m helix_kit.experiments.machinery.fidelity`); do not edit. Every",
        "simulation published with the Helix artifact (ASPLOS'25) is run again under its rules",
        '(`execution="layerwise"`), on the published',
        "placements, flow splits, KV capacities, links, offered loads and request streams of `data/published`.",
        "",
        f"- Throughput: {exact(throughput)} rows agree to the last printed digit.",
        f"  Without the {len(marked)} runs marked * the largest difference beyond rounding is {worst(throughput)}.",
        f"- Latency: {exact(latency)} percentiles agree to the last printed digit. Without the marked runs",
        f"  the largest difference beyond rounding is {worst(latency)}.",
        "- \\* The flow split of these runs, and with it what was published, depends on the hash seed of the Python",
        "  process; the range over seeds is given. We have the split of hash seed 0 and get its values.",
        "- Random and shortest queue draw the random numbers that the published schedulers draw, so they agree too.",
        "",
        "## Throughput: decode tokens/s",
        "",
        "| section | setup | model | method | mode | published | ours | difference |",
        "|---|---|---|---|---|---:|---:|---:|",
    ]
    for r in throughput:
        given = f"{r.published:.1f}{r.range_over_seeds}"
        lines.append(f"| {_cells(r.run)} | {given} | {r.ours:.2f} | {r.error:+.2%} |")
    lines += [
        "",
        "## Latency of online serving: percentiles in s",
        "",
        "Published and ours, as p5 / p25 / p50 / p75 / p95. The published ones are rounded to 0.01 s.",
        "",
        "| section | setup | model | method | phase | published | ours | largest difference beyond rounding |",
        "|---|---|---|---|---|---|---|---:|",
    ]
    for run, _ in summaries:
        for phase in ("prompt", "decode"):
            of = [r for r in latency if r.run is run and r.metric.startswith(phase)]
            if of:
                lines.append(
                    f"| {run.section} | {run.setup} | {run.model} | {run.method} | {phase}{of[0].range_over_seeds} | "
                    f"{' / '.join(f'{r.published:.2f}' for r in of)} | {' / '.join(f'{r.ours:.3f}' for r in of)} | "
                    f"{_percent(max(r.error_beyond_rounding for r in of))} |"
                )
    lines += ["", *_prototype(summaries)]
    return "\n".join(lines) + "\n"


def _prototype(summaries: list[tuple[PublishedRun, dict[str, Any]]]) -> list[str]:
    lines = [
        "## Against the published prototype",
        "",
        "Decode tokens/s measured by the authors on single24, beside their simulator and ours.",
        "",
        "| model | method | mode | prototype | published simulation | error | ours | error |",
        "|---|---|---|---:|---:|---:|---:|---:|",
    ]
    their_errors, our_errors = [], []
    for run, summary in summaries:
        real = run.values("prototype").get(SPEED)
        published = run.values("simulation").get(SPEED)
        if run.setup != "single" or real is None or published is None:
            continue
        ours = summary[SPEED]
        their_errors.append(abs(published / real - 1))
        our_errors.append(abs(ours / real - 1))
        lines.append(
            f"| {run.model} | {run.method} | {run.mode} | {real:.1f} | {published:.1f} | {published / real - 1:+.1%} | "
            f"{ours:.1f} | {ours / real - 1:+.1%} |"
        )
    mean = math.fsum(their_errors) / len(their_errors), math.fsum(our_errors) / len(our_errors)
    lines += ["", f"Mean absolute error over {len(our_errors)} pairs: published {mean[0]:.1%}, ours {mean[1]:.1%}."]
    return lines


def _cells(run: PublishedRun) -> str:
    return f"{run.section} | {run.setup} | {run.model} | {run.method} | {run.mode}"


def _percent(share: float) -> str:
    return f"{share:.2%}" if share > 0 else "none"


def main() -> None:
    """Run everything and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=data_dir().parent / "docs" / "fidelity.md")
    parser.add_argument("-q", "--quiet", action="store_true")
    args = parser.parse_args()
    summaries = []
    for run in published_runs():
        started = time.process_time()
        summaries.append((run, run.run().summary()))
        if not args.quiet:
            print(f"{run.name}: {time.process_time() - started:.1f} CPU-s", flush=True)
    args.output.write_text(report(summaries), encoding="utf-8")
    print(f"wrote {args.output}")


if __name__ == "__main__":
    main()
