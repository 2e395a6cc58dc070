"""Figures 1 and 2."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from helix_kit.plots.bars import WIDTH_IN, rows_of
from helix_kit.plots.theme import CUT_COLOUR, KIND_COLOURS, mix

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

TITLES = {
    "uniform": "uniform: equal shares",
    "balanced": "balanced: shares by speed",
    "network-aware": "network-aware: by max flow",
}
REGIONS = {"near": (KIND_COLOURS[0], ""), "far": (KIND_COLOURS[1], "///")}


def draw_splits(table: pd.DataFrame) -> Figure:
    """A panel a split: a bar from the first to the last layer of each machine, filled to its use."""
    figure = Figure(figsize=(WIDTH_IN, 2.5), layout="constrained")
    panels = figure.subplots(1, len(TITLES), sharey=True)
    names = list(dict.fromkeys(table["node"]))
    for axes, (split, title) in zip(panels, TITLES.items(), strict=True):
        part = table[table["split"] == split]
        for row in rows_of(part):
            y, colour = names.index(row.node), REGIONS[row.region][0]
            used = row.flow_tokens_per_s / row.capacity_tokens_per_s
            width = row.end - row.start
            axes.add_patch(Rectangle((row.start, y - 0.36), width, 0.72, facecolor=mix(colour, "#ffffff", 0.18)))
            axes.add_patch(
                Rectangle(
                    (row.start, y + 0.36 - 0.72 * used), width, 0.72 * used, facecolor=mix(colour, "#ffffff", 0.75),
                    hatch=REGIONS[row.region][1], edgecolor="white", linewidth=0,
                )
            )  # fmt: skip
            edge, line = (CUT_COLOUR, 2.0) if row.in_min_cut else (colour, 0.8)
            axes.add_patch(Rectangle((row.start, y - 0.36), width, 0.72, fill=False, edgecolor=edge, linewidth=line))
            if not row.in_min_cut and used < 0.995:
                side = row.start - 0.5 if row.start > 12 else row.end + 0.5
                axes.text(side, y, f"{used:.0%}", fontsize=6, va="center", ha="right" if row.start > 12 else "left")
        limit = "the slow link" if part["link_in_min_cut"].any() else "the outlined machine"
        flow = part["max_flow_tokens_per_s"].iloc[0]
        axes.set_title(f"{title}\n{flow:,.0f} tokens/s", fontsize=8)
        axes.set_xlabel(f"layer (limited by {limit})", fontsize=6.5)
        axes.set(xlim=(-0.3, 24.3), ylim=(len(names) - 0.45, -0.55), xticks=range(0, 25, 6))
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(labelsize=6.5, length=0)
        axes.spines[["top", "right", "left"]].set_visible(False)
    patches = [
        Patch(facecolor=mix(colour, "#ffffff", 0.75), hatch=hatch, edgecolor="white", label=label)
        for (colour, hatch), label in zip(
            REGIONS.values(), ("beside the coordinator", "behind the 0.1 Gbit/s link"), strict=True
        )
    ]
    patches.append(Patch(facecolor="white", edgecolor=CUT_COLOUR, linewidth=2, label="limits the flow (min cut)"))
    figure.legend(handles=patches, loc="outside lower center", ncols=3, frameon=False, fontsize=7)
    return figure


PLACES = {"A100-40G-0": (2.9, 1.0), "T4-0": (6.2, 1.9), "T4-1": (6.2, 0.1)}
ENDS = {"out": (-0.2, 1.0), "in": (9.4, 1.0)}
HALF_WIDTH, HALF_HEIGHT = 0.75, 0.42


def draw_flow_network(table: pd.DataFrame) -> Figure:
    """Machines as boxes (the edges with their own capacity), links as arrows; flow / capacity on each."""
    figure = Figure(figsize=(WIDTH_IN, 2.6))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-1.2, 10.4), ylim=(-0.75, 2.75))
    axes.axis("off")
    for name, side in (("coordinator\n(source)", "out"), ("coordinator\n(sink)", "in")):
        axes.text(
            *ENDS[side], name, ha="center", va="center", fontsize=7.5,
            bbox={"boxstyle": "round,pad=0.4", "facecolor": "0.92", "edgecolor": "0.4"},
        )  # fmt: skip
    for row in rows_of(table):
        colour = CUT_COLOUR if row.in_min_cut else "0.3"
        label = f"{row.flow_tokens_per_s:,.0f} / {_short(row.capacity_tokens_per_s)}"
        if row.source == row.target:
            _machine(axes, row, label, colour)
        else:
            _link(axes, row, label, colour)
    axes.text(
        -1.1, -0.65, "flow / capacity, tokens/s; vermilion, thick: the min cut; dotted: unused", fontsize=7, color="0.3"
    )
    return figure


def _short(tokens_per_s: float) -> str:
    return f"{tokens_per_s / 1e6:,.0f} M" if tokens_per_s >= 1e6 else f"{tokens_per_s:,.0f}"


def _machine(axes: Axes, row: Any, label: str, colour: str) -> None:
    x, y = PLACES[row.source]
    line = 2.2 if row.in_min_cut else 1.0
    box = (x - HALF_WIDTH, y - HALF_HEIGHT)
    axes.add_patch(
        Rectangle(box, 2 * HALF_WIDTH, 2 * HALF_HEIGHT, facecolor=mix(KIND_COLOURS[0], "#ffffff", 0.15),
                  edgecolor=colour, linewidth=line)
    )  # fmt: skip
    span = f"layers {row.start:.0f}–{row.end - 1:.0f}"
    axes.text(x, y, f"{row.source}\n{span}\n{label}", ha="center", va="center", fontsize=7)


def _link(axes: Axes, row: Any, label: str, colour: str) -> None:
    source, target = row.source, row.target
    used = row.flow_tokens_per_s > 0
    start = ENDS["out"] if source == "coordinator" else PLACES[source]
    end = ENDS["in"] if target == "coordinator" else PLACES[target]
    vertical = start[0] == end[0]
    if vertical:
        tail = (start[0], start[1] + HALF_HEIGHT * (1 if end[1] > start[1] else -1))
        head = (end[0], end[1] - HALF_HEIGHT * (1 if end[1] > start[1] else -1))
    else:
        tail = (start[0] + (0.62 if source == "coordinator" else HALF_WIDTH), start[1])
        head = (end[0] - (0.62 if target == "coordinator" else HALF_WIDTH), end[1])
    axes.annotate(
        "", head, tail,
        arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": 2.2 if row.in_min_cut else 1.2,
                    "linestyle": "-" if used else ":", "shrinkA": 0, "shrinkB": 0},
    )  # fmt: skip
    middle = ((tail[0] + head[0]) / 2, (tail[1] + head[1]) / 2)
    axes.text(
        *middle, label, fontsize=6.5, ha="center", va="center", color=colour,
        bbox={"boxstyle": "square,pad=0.12", "facecolor": "white", "edgecolor": "none"},
    )  # fmt: skip
