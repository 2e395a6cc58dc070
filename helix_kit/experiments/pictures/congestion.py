"""Congestion by machine: shares of time as shades of one colour, with the numbers that matter written in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from helix_kit.experiments.pictures.evaluation import METHODS, methods_of
from helix_kit.plots.bars import WIDTH_IN

if TYPE_CHECKING:
    import pandas as pd

PANELS = {"busy": "computes", "blocked": "stands still: links are full"}
WRITTEN = 0.1
"""Shares from here on are written into their cell."""


def draw_congestion(table: pd.DataFrame) -> Figure:
    """A column of panels a setup, a panel a share; machines from left to right, schedulers from top to bottom."""
    setups = list(dict.fromkeys(table["setup"]))
    # Where no machine ever stands still there is nothing to show.
    panels = [(s, p) for s in setups for p in PANELS if table.loc[table["setup"] == s, p].max() >= WRITTEN]
    figure = Figure(figsize=(WIDTH_IN, 1.75 * len(panels)), layout="constrained")
    grid = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
    shown = None
    for index, (setup, share) in enumerate(panels):
        part = table[table["setup"] == setup]
        methods, nodes = methods_of(part), list(dict.fromkeys(part["node"]))
        wide = part.pivot(index="method", columns="node", values=share).loc[methods, nodes]
        axes = grid[index]
        # One hue from white to dark: the order is the same in grey and for the colour-blind.
        shown = axes.imshow(wide, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for y, row in enumerate(wide.to_numpy()):
            for x, value in enumerate(row):
                if value >= WRITTEN:
                    axes.text(
                        x, y, f"{100 * value:.0f}", ha="center", va="center", fontsize=5.5,
                        color="white" if value > 0.55 else "black",
                    )  # fmt: skip
        axes.set_yticks(range(len(methods)), [METHODS[m].replace("\n", " ") for m in methods], fontsize=6.5)
        axes.set_xticks(
            range(len(nodes)),
            nodes if panels[index + 1 : index + 2] != [(setup, list(PANELS)[-1])] else [],
            fontsize=5.8,
            rotation=60,
            ha="right",
        )
        axes.set_title(f"{setup}: {PANELS[share]}", fontsize=8.5)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    if shown is not None:
        bar = figure.colorbar(shown, ax=list(grid), shrink=0.4, aspect=30, format=lambda v, _: f"{100 * v:.0f}")
        bar.set_label("% of the time", fontsize=7)
        bar.ax.tick_params(labelsize=6.5)
    return figure
