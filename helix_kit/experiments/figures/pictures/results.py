"""All results in one picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from helix_kit.experiments.figures.common.rows import BASELINES
from helix_kit.experiments.figures.pictures.evaluation import speeds_of
from helix_kit.experiments.figures.pictures.looks import (
    METHODS,
    MODELS,
    PLACES,
    finish_axes,
    grid_both_ways,
    headline,
    legend_below,
    log_ticks,
    new_figure,
    range_text,
    ratios,
)

if TYPE_CHECKING:
    import pandas as pd

TICKS = (0.25, 0.5, 1, 2, 3)
SHIFT = 0.12
"""Our plans are drawn a little above the line and baselines a little below, so that marks do not hide each other."""


def draw_results(table: pd.DataFrame) -> Figure:
    """One line for each setting: each method's decode throughput over that of Helix's plan, logarithmic."""
    columns = ["section", "setup", "model", "mode"]
    cases = list(dict.fromkeys(zip(*(table[c] for c in columns), strict=True)))
    speeds = [speeds_of(table[(table[columns] == case).all(axis=1)]) for case in cases]
    figure = new_figure(0.26 * len(cases) + 1.1)
    axes = figure.subplots()
    for method, look in METHODS.items():
        shift = -SHIFT if method.startswith("own") else 0.0 if method == "helix" else SHIFT
        points = [(s[method] / s["helix"], y + shift) for y, s in enumerate(speeds) if method in s]
        if points:
            axes.scatter(
                [x for x, _ in points], [y for _, y in points], marker=look.mark, s=26 if look.mark != "|" else 110,
                color=look.colour, label=look.label, zorder=3, linewidths=1.1,
            )  # fmt: skip
    for y in [i for i in range(1, len(cases)) if cases[i][0] != cases[i - 1][0]]:
        axes.axhline(y - 0.5, color="0.75", lw=0.8)
    axes.set(
        xscale="log", xlabel="decode throughput, times that of Helix's published plan", ylim=(len(cases) - 0.5, -0.5)
    )
    log_ticks(axes, "x", TICKS)
    axes.set_yticks(range(len(cases)), [f"{c[0]}  {PLACES.get(c[1], c[1])}, {MODELS[c[2]]}, {c[3]}" for c in cases])
    finish_axes(axes)
    grid_both_ways(axes)
    gains = [ratio for s in speeds for ratio in ratios(s, "helix", BASELINES)]
    own = [ratio for s in speeds for ratio in ratios(s, "own served", ("helix",))]
    text = f"Helix serves {range_text(gains)} times as much as Swarm and separate pipelines"
    headline(figure, text + (f"; our served plans, {range_text(own)} times as much as Helix" if own else ""))
    legend_below(figure, 5)
    return figure
