"""Grouped bars for the evaluation: colours that stay apart for the colour-blind, hatches that stay apart in grey."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from helix_kit.plots.theme import KIND_COLOURS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

HATCHES = ("", "///", "...", "\\\\\\", "xxx", "ooo", "++", "--")
WIDTH_IN = 7.0
"""Width of a figure in inches: a page's text width."""


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
    """Bars of `value`, one group per `groups`, one bar per `series`; a missing one leaves its place empty.

    `styles` are arguments of matplotlib's bars by series (colour, hatch, label), else the next of the palette.
    """
    names = list(order or dict.fromkeys(table[series]))
    places = list(dict.fromkeys(table[groups]))
    width = 0.84 / len(names)
    for index, name in enumerate(names):
        heights = [table[(table[groups] == g) & (table[series] == name)][value].mean() for g in places]
        x = np.arange(len(places)) + (index - (len(names) - 1) / 2) * width
        look = {"color": KIND_COLOURS[index % len(KIND_COLOURS)], "hatch": HATCHES[index % len(HATCHES)], "label": name}
        look |= {"edgecolor": "white", "linewidth": 0.4, **(styles or {}).get(name, {})}
        bars = axes.bar(x, np.nan_to_num(heights), width * 0.94, **look)
        if labels:
            texts = ["" if np.isnan(h) else labels.format(h) for h in heights]
            turned = 90 if len(names) * len(places) >= 12 else 0
            # On white, so that no line runs through a number.
            paper = {"facecolor": "white", "edgecolor": "none", "pad": 0.3}
            axes.bar_label(bars, texts, fontsize=6, padding=2, rotation=turned, bbox=paper, zorder=4)
    axes.set_xticks(range(len(places)), places)
    axes.margins(y=0.18)
    tidy(axes)


def rows_of(table: pd.DataFrame) -> list[Any]:
    """The rows as objects with a field a column."""
    return list(table.itertuples(index=False))


def tidy(axes: Axes) -> None:
    """The look of every chart: no box, light horizontal lines behind the marks."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.88", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
