"""All results at a glance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from helix_kit.experiments.figures.pictures.evaluation import BASELINES, speeds_of
from helix_kit.experiments.figures.pictures.looks import METHODS, MODELS, PLACES, headline, over, small, span
from helix_kit.plots.bars import WIDTH_IN, tidy

if TYPE_CHECKING:
    import pandas as pd

TICKS = (0.25, 0.5, 1, 2, 3)
SHIFT = 0.12
"""Own plans stand a little above, baselines a little below the line, so that marks do not hide each other."""


def draw_results(table: pd.DataFrame) -> Figure:
    """A line a setting; a method's decode throughput over that of Helix's plan, logarithmic."""
    columns = ["section", "setup", "model", "mode"]
    cases = list(dict.fromkeys(zip(*(table[c] for c in columns), strict=True)))
    speeds = [speeds_of(table[(table[columns] == case).all(axis=1)]) for case in cases]
    figure = Figure(figsize=(WIDTH_IN, 0.26 * len(cases) + 1.1), layout="constrained")
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
    axes.set_xticks(TICKS, [f"{t:g}" for t in TICKS])
    axes.minorticks_off()
    axes.set_yticks(range(len(cases)), [f"{c[0]}  {PLACES.get(c[1], c[1])}, {MODELS[c[2]]}, {c[3]}" for c in cases])
    tidy(axes)
    small(axes)
    axes.grid(axis="x", color="0.88", linewidth=0.6)
    gains = [ratio for s in speeds for ratio in over(s, "helix", BASELINES)]
    own = [ratio for s in speeds for ratio in over(s, "own served", ("helix",))]
    text = f"Helix serves {span(gains)} times what Swarm and separate pipelines do"
    headline(figure, text + (f"; our plans made to serve, {span(own)} times Helix" if own else ""))
    figure.legend(loc="outside lower center", ncols=5, frameon=False, fontsize=7)
    return figure
