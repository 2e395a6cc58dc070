"""Grouped bars, whose colours differ for the colour-blind and whose hatches differ in grey, and the look of charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from helix_kit.plots.theme import KIND_COLOURS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

HATCHES = ("", "///", "...", "\\\\\\", "xxx", "ooo", "++", "--")
WIDTH_IN = 7.0
"""Width of a figure in inches: that of the text on a page."""


def grouped_bars(
    axes: Axes,
    table: pd.DataFrame,
    *,
    groups: str,
    series: str,
    value: str,
    order: Sequence[str] | None = None,
    labels: str | None = "{:,.0f}",
    styles: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Draw bars of the column `value`: one group for each value of `groups`, in it one bar for each of `series`.

    A missing bar leaves its place empty. `order` is the order of the series, and `labels` the format of the values over
    the bars. `styles` are arguments of matplotlib's bars by series (colour, hatch, label); a series without one has the
    next colour and hatch of the palette.
    """
    names = list(order or dict.fromkeys(table[series]))
    places = list(dict.fromkeys(table[groups]))
    width = 0.84 / len(names)
    for index, name in enumerate(names):
        rows = table[(table[series] == name) & table[value].notna()]
        heights = [float(rows[rows[groups] == place][value].mean()) for place in places if place in set(rows[groups])]
        x = [i + (index - (len(names) - 1) / 2) * width for i, place in enumerate(places) if place in set(rows[groups])]
        look = {"color": KIND_COLOURS[index % len(KIND_COLOURS)], "hatch": HATCHES[index % len(HATCHES)], "label": name}
        look |= {"edgecolor": "white", "linewidth": 0.4, **(styles or {}).get(name, {})}
        bars = axes.bar(x, heights, width * 0.94, **look)
        if labels:
            texts = [labels.format(height) for height in heights]
            turned = 90 if len(names) * len(places) >= 12 else 0
            # A white background, so that no line runs through a number.
            background = {"facecolor": "white", "edgecolor": "none", "pad": 0.3}
            axes.bar_label(bars, texts, fontsize=6, padding=2, rotation=turned, bbox=background, zorder=4)
    axes.set_xticks(range(len(places)), places)
    axes.margins(y=0.18)
    tidy(axes)


def rows_of(table: pd.DataFrame) -> list[Any]:
    """The rows of a table as objects with one field for each column."""
    return list(table.itertuples(index=False))


def tidy(axes: Axes) -> None:
    """Give a chart the look of all charts: no box, light horizontal lines behind the marks."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.88", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
