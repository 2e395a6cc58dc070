"""Methods under the same load rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from helix_kit.experiments.figures.pictures.evaluation import PHASES, bars, boxes, finish, methods_of, pitch_of, places
from helix_kit.experiments.figures.pictures.looks import PLACES, SMALLEST_PT, TITLE_PT, headline, new_figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


def draw_equal_load(table: pd.DataFrame) -> Figure:
    """One row for each setup: throughput with the offered load, prompt and decode latency."""
    setups = list(dict.fromkeys(table["setup"]))
    figure = new_figure(2.2 * len(setups) + 0.6)
    grid = figure.subplots(len(setups), 3, squeeze=False)
    for row, setup in zip(grid, setups, strict=True):
        mine = table[table["setup"] == setup]
        bars(row[0], mine, labels=False)
        _offered(row[0], mine)
        row[0].set(ylabel="decode tokens/s")
        row[0].set_title(PLACES.get(setup, setup), loc="left", fontsize=TITLE_PT)
        for axes, phase in zip(row[1:], PHASES, strict=True):
            boxes(axes, mine, phase)
            axes.set(ylabel=PHASES[phase])
    line = Line2D([], [], color="black", lw=1.4, label="offered")
    methods = _methods_that_keep_up(table)
    headline(
        figure,
        f"At the same rate for all, {methods} with the offered load, to within 2 %, on all {len(setups)} clusters",
    )
    finish(figure, grid.flat, table, more=[line])
    for axes in grid.flat:
        axes.tick_params(axis="x", labelsize=SMALLEST_PT, rotation=0)
        axes.set_xticks(
            axes.get_xticks(),
            [
                t.get_text().replace("separate", "sepa-\nrate").replace("max flow", "flow")
                for t in axes.get_xticklabels()
            ],
        )
    return figure


def _methods_that_keep_up(table: pd.DataFrame) -> str:
    """Subject and verb of a sentence: the methods within 2 % of the offered load on every cluster."""
    same = table[
        (table["source"] == "same rate") & (table["metric"].isin(["decode_tokens_per_s", "offered_tokens_per_s"]))
    ]
    wide = same.pivot_table(index=["method", "setup"], columns="metric", values="value")
    least = (wide["decode_tokens_per_s"] / wide["offered_tokens_per_s"]).groupby("method").min()
    found = [method for method in methods_of(table) if least[method] > 0.98]
    names = {"own served": "our served plans", "own flow": "our plans with the largest flow", "helix": "Helix's plans"}
    if not found:
        return "no method keeps up"
    return ("only " if len(found) == 1 else "") + " and ".join(names.get(m, m) for m in found) + " keep up"


def _offered(axes: Axes, part: pd.DataFrame) -> None:
    values = part[part["metric"] == "offered_tokens_per_s"].set_index(["method", "source"])["value"]
    pitch = pitch_of(part)
    for place, method in enumerate(methods_of(part)):
        sources = [s for m, s in values.index if m == method]
        for x, source in zip(places(place, len(sources), pitch), sources, strict=True):
            axes.hlines(float(values[method, source]), x - pitch / 2, x + pitch / 2, color="black", lw=1.4)
