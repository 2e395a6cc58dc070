"""Methods under the same load rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from helix_kit.experiments.pictures.evaluation import PHASES, bars, boxes, finish, methods_of, places
from helix_kit.plots.bars import WIDTH_IN

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

SETUPS = {"single": "one cluster, 24 nodes", "geo": "three regions, 24 nodes", "hetero42": "42 nodes, seven kinds"}


def draw_equal_load(table: pd.DataFrame) -> Figure:
    """A row a setup: throughput with what was offered, prompt and decode latency."""
    setups = list(dict.fromkeys(table["setup"]))
    figure = Figure(figsize=(WIDTH_IN, 2.2 * len(setups) + 0.4), layout="constrained")
    grid = figure.subplots(len(setups), 3, squeeze=False)
    for row, setup in zip(grid, setups, strict=True):
        mine = table[table["setup"] == setup]
        bars(row[0], mine, labels=False)
        _offered(row[0], mine)
        row[0].set(title=SETUPS.get(setup, setup), ylabel="decode throughput, tokens/s")
        for axes, phase in zip(row[1:], PHASES, strict=True):
            boxes(axes, mine, phase)
            axes.set(ylabel=PHASES[phase])
    line = Line2D([], [], color="black", lw=1.4, label="offered")
    finish(figure, grid.flat, table, more=[line])
    for axes in grid.flat:
        axes.tick_params(axis="x", labelsize=5.2)
    return figure


def _offered(axes: Axes, part: pd.DataFrame) -> None:
    values = part[part["metric"] == "offered_tokens_per_s"].set_index(["method", "source"])["value"]
    for place, method in enumerate(methods_of(part)):
        sources = [s for m, s in values.index if m == method]
        for x, source in zip(places(place, len(sources)), sources, strict=True):
            axes.hlines(float(values[method, source]), x - 0.15, x + 0.15, color="black", lw=1.4)
