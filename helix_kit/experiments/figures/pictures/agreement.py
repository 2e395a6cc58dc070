"""Our numbers against the published ones, a mark for each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from helix_kit.experiments.figures.pictures.looks import (
    at_least_text,
    finish_axes,
    grid_both_ways,
    headline,
    legend_below,
    log_ticks,
    new_figure,
)
from helix_kit.plots.theme import KIND_COLOURS

if TYPE_CHECKING:
    import pandas as pd

PANELS = {
    "decode_tokens_per_s": "decode throughput, tokens/s",
    "prompt": "prompt latency, s",
    "decode": "decode latency, s",
}
MARKS = {
    "published simulation": ("o", KIND_COLOURS[4], "none"),
    "published prototype": ("x", KIND_COLOURS[1], KIND_COLOURS[1]),
}


TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500)


def draw_agreement(table: pd.DataFrame) -> Figure:
    """Three log-log panels: throughput, prompt latency, decode latency."""
    figure = new_figure(3.0)
    for axes, (key, label) in zip(figure.subplots(1, 3), PANELS.items(), strict=True):
        wanted = (
            table["metric"] == key if key.endswith("tokens_per_s") else table["metric"].str.startswith(f"{key}_latency")
        )
        part, unit = table[wanted], label.rpartition(", ")[2]
        ends = np.array([part[["published", "ours"]].min().min() * 0.8, part[["published", "ours"]].max().max() * 1.25])
        axes.fill_between(ends, 0.95 * ends, 1.05 * ends, color="0.85", linewidth=0)
        axes.plot(ends, ends, color="0.5", lw=0.6)
        for source, (mark, colour, face) in MARKS.items():
            mine = part[part["source"] == source]
            axes.scatter(
                mine["published"], mine["ours"], marker=mark, s=16, linewidths=0.9,
                label=source,
                edgecolors=KIND_COLOURS[0] if mark == "o" else None, facecolors=face if mark == "o" else colour,
            )  # fmt: skip
        axes.set(
            xscale="log",
            yscale="log",
            xlim=ends,
            ylim=ends,
            xlabel=f"published, {unit}",
            ylabel=f"ours, {unit}",
        )
        for which in ("x", "y"):
            log_ticks(axes, which, [t for t in TICKS if ends[0] <= t <= ends[1]])
        counts = " and ".join(_within(part[part["source"] == source]) for source in MARKS)
        axes.set_title(f"{label}\n{counts} within 5 %")
        finish_axes(axes)
        grid_both_ways(axes)
    band = Patch(facecolor="0.85", label="5 % to either side")
    handles, _ = axes.get_legend_handles_labels()
    legend_below(figure, 3, handles=[*handles, band])
    shares = [100 * _share(table[table["source"] == source]) for source in MARKS]
    headline(
        figure,
        f"Our simulator is within 5 % of {at_least_text(shares[0], 2)} % of the published simulation's numbers, and of "
        f"{at_least_text(shares[1], 2)} % of the prototype's",
    )
    return figure


def _share(part: pd.DataFrame) -> float:
    """The share of numbers within 5 %."""
    return float((part["difference_percent"].abs() <= 5).mean())


def _within(part: pd.DataFrame) -> str:
    return f"{(part['difference_percent'].abs() <= 5).sum()} of {len(part)}"
