"""Congestion by machine: shares of time as shades of one colour, with the larger numbers written in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from helix_kit.experiments.figures.pictures.evaluation import methods_of
from helix_kit.experiments.figures.pictures.looks import (
    LABEL_PT,
    METHODS,
    SMALLEST_PT,
    TICKS_PT,
    headline,
    new_figure,
    range_text,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

PANELS = {
    "busy": "% of the time that a machine computes",
    "blocked": "% of the time that it waits with finished work, because its links are full",
}
DRAWN, WRITTEN = 0.1, 0.05
"""A panel is drawn if its largest share is at least the first; shares of at least the second are written in."""


def draw_congestion(table: pd.DataFrame) -> Figure:
    """One panel for each setup and share; machines from left to right by kind, schedulers from top to bottom."""
    setups = list(dict.fromkeys(table["setup"]))
    panels = [(s, p) for s in setups for p in PANELS if table.loc[table["setup"] == s, p].max() >= DRAWN]
    figure = new_figure(1.5 * len(panels) + 0.3)
    for axes, (setup, share) in zip(figure.subplots(len(panels), 1, squeeze=False)[:, 0], panels, strict=True):
        part = table[table["setup"] == setup]
        methods, nodes = methods_of(part), sorted(dict.fromkeys(part["node"]), key=_kind_and_number)
        wide = part.pivot(index="method", columns="node", values=share).loc[methods, nodes]
        # One hue from white to dark: the order is the same in grey and for the colour-blind.
        axes.imshow(wide, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for y, row in enumerate(wide.to_numpy()):
            for x, value in enumerate(row):
                if value >= WRITTEN:
                    ink = "white" if value > 0.55 else "black"
                    axes.text(x, y, f"{100 * value:.0f}", ha="center", va="center", fontsize=SMALLEST_PT, color=ink)
            axes.text(
                len(nodes) - 0.3, y, f"mean {100 * row.mean():.0f} %", ha="left", va="center", fontsize=TICKS_PT,
            )  # fmt: skip
        axes.set_yticks(range(len(methods)), [METHODS[m].label for m in methods], fontsize=TICKS_PT)
        axes.set_xticks(range(len(nodes)), [str(_kind_and_number(n)[1]) for n in nodes], fontsize=SMALLEST_PT)
        _name_kinds(axes, nodes)
        axes.set_title(f"{setup}: {PANELS[share]}", fontsize=LABEL_PT, loc="left")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    headline(figure, _headline(table, setups))
    return figure


def _name_kinds(axes: Axes, nodes: list[str]) -> None:
    """Write the kind under its machines' numbers, and leave a gap between kinds."""
    kinds = [_kind_and_number(n)[0] for n in nodes]
    for kind in dict.fromkeys(kinds):
        first = kinds.index(kind)
        last = first + kinds.count(kind) - 1
        axes.annotate(
            kind, ((first + last) / 2, 0), (0, -12), xycoords=("data", "axes fraction"), textcoords="offset points",
            ha="center", va="top", fontsize=TICKS_PT,
        )  # fmt: skip
        if first:
            axes.axvline(first - 0.5, color="white", lw=3)


def _kind_and_number(node: str) -> tuple[str, int]:
    kind, _, number = node.rpartition("-")
    return kind, int(number)


def _headline(table: pd.DataFrame, setups: list[str]) -> str:
    texts = []
    for setup in setups:
        mean = 100 * table[table["setup"] == setup].groupby("method")["busy"].mean()
        texts.append(f"{mean['helix']:.0f} % against {range_text(mean.drop('helix'), '{:.0f}')} % in {setup}")
    return f"Share of the time that machines compute, with Helix's scheduler against the others: {', '.join(texts)}"
