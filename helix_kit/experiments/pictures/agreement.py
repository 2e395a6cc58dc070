"""Ours against published, number by number."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from helix_kit.plots.bars import WIDTH_IN, tidy
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
    figure = Figure(figsize=(WIDTH_IN, 2.8), layout="constrained")
    for axes, (key, label) in zip(figure.subplots(1, 3), PANELS.items(), strict=True):
        wanted = (
            table["metric"] == key if key.endswith("tokens_per_s") else table["metric"].str.startswith(f"{key}_latency")
        )
        part = table[wanted]
        ends = np.array([part[["published", "ours"]].min().min() * 0.8, part[["published", "ours"]].max().max() * 1.25])
        axes.fill_between(ends, 0.95 * ends, 1.05 * ends, color="0.85", linewidth=0)
        axes.plot(ends, ends, color="0.5", lw=0.6)
        for source, (mark, colour, face) in MARKS.items():
            mine = part[part["source"] == source]
            axes.scatter(
                mine["published"], mine["ours"], marker=mark, s=16, linewidths=0.9, label=f"{source} ({len(mine)})",
                edgecolors=KIND_COLOURS[0] if mark == "o" else None, facecolors=face if mark == "o" else colour,
            )  # fmt: skip
        axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends, xlabel="published", ylabel="ours")
        ticks = [t for t in TICKS if ends[0] <= t <= ends[1]]
        axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
        axes.set_yticks(ticks, [f"{t:g}" for t in ticks])
        axes.minorticks_off()
        axes.set_title(label, fontsize=8.5)
        axes.legend(frameon=False, fontsize=6, loc="upper left", handletextpad=0.2)
        axes.tick_params(labelsize=6.5)
        axes.xaxis.label.set_fontsize(7.5)
        axes.yaxis.label.set_fontsize(7.5)
        tidy(axes)
    return figure
