"""All results at a glance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from helix_kit.experiments.pictures.evaluation import METHODS, MODELS
from helix_kit.plots.bars import WIDTH_IN, tidy
from helix_kit.plots.theme import KIND_COLOURS

if TYPE_CHECKING:
    import pandas as pd

MARKS = dict(zip(METHODS, "|vPs^x+oD", strict=True))
TICKS = (0.25, 0.5, 1, 2, 3)
SHIFT = 0.12
"""Own plans stand a little above, baselines a little below the line, so that marks do not hide each other."""


def draw_results(table: pd.DataFrame) -> Figure:
    """A line a setting; a method's decode throughput over that of Helix's plan, logarithmic."""
    speed = table[(table["metric"] == "decode_tokens_per_s") & (table["source"] == "ours")]
    cases = list(dict.fromkeys(zip(*(speed[c] for c in ("section", "setup", "model", "mode")), strict=True)))
    figure = Figure(figsize=(WIDTH_IN, 0.24 * len(cases) + 0.9), layout="constrained")
    axes = figure.subplots()
    for index, (method, mark) in enumerate(MARKS.items()):
        points = []
        for y, case in enumerate(cases):
            mine = speed[(speed[["section", "setup", "model", "mode"]] == case).all(axis=1)].set_index("method")[
                "value"
            ]
            if method in mine.index:
                shift = -SHIFT if method.startswith("own") else 0.0 if method == "helix" else SHIFT
                points.append((mine[method] / mine["helix"], y + shift))
        if points:
            axes.scatter(
                [x for x, _ in points], [y for _, y in points], marker=mark, s=26 if mark != "|" else 90,
                color=KIND_COLOURS[index % len(KIND_COLOURS)], label=METHODS[method].replace("\n", " "), zorder=3,
                linewidths=1.1,
            )  # fmt: skip
    axes.set(
        xscale="log", xlabel="decode throughput, times that of Helix's published plan", ylim=(len(cases) - 0.5, -0.5)
    )
    axes.set_xticks(TICKS, [f"{t:g}" for t in TICKS])
    axes.minorticks_off()
    axes.set_yticks(range(len(cases)), [f"{c[0]} {c[1]}, {MODELS[c[2]]}, {c[3]}" for c in cases])
    axes.tick_params(labelsize=6.5)
    axes.xaxis.label.set_fontsize(7.5)
    tidy(axes)
    axes.grid(axis="x", color="0.88", linewidth=0.6)
    figure.legend(loc="outside lower center", ncols=5, frameon=False, fontsize=7)
    return figure
