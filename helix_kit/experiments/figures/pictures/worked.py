"""Figures 1 and 2: three splits of a model, and a flow network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from helix_kit.experiments.figures.pictures.looks import (
    LABEL_PT,
    SMALLEST_PT,
    TICKS_PT,
    draw_machine,
    headline,
    legend_below,
    new_figure,
    outline_machine,
)
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
BAR_HEIGHT = 0.72
"""Height of a machine's bar; from one machine to the next it is 1."""
REGIONS = {"near": (KIND_COLOURS[0], ""), "far": (KIND_COLOURS[1], "///")}


def draw_splits(table: pd.DataFrame) -> Figure:
    """One panel for each split: a bar over each machine's layers, filled to the used share of its capacity."""
    figure = new_figure(2.8)
    panels = figure.subplots(1, len(TITLES), sharey=True)
    names = list(dict.fromkeys(table["node"]))
    flows: dict[str, float] = {}
    for axes, (split, title) in zip(panels, TITLES.items(), strict=True):
        part = table[table["split"] == split]
        beside = _slow_links(axes, part, names)
        for row in rows_of(part):
            y, colour = names.index(row.node), REGIONS[row.region][0]
            used = row.flow_tokens_per_s / row.capacity_tokens_per_s
            layers = (row.start, row.end)
            draw_machine(axes, layers, y, used, REGIONS[row.region], height=BAR_HEIGHT, full=0.75)
            edge, line = (CUT_COLOUR, 2.0) if row.in_min_cut else (colour, 0.8)
            outline_machine(axes, layers, y, height=BAR_HEIGHT, colour=edge, linewidth=line)
            if not row.in_min_cut and used < 0.995:
                left = row.start > 12 and row.node not in beside
                side = row.start - 0.5 if left else row.end + 0.5
                axes.text(side, y, f"{used:.0%}", fontsize=SMALLEST_PT, va="center", ha="right" if left else "left")
        limit = "the slow link" if part["link_in_min_cut"].any() else "the outlined machine"
        flow = part["max_flow_tokens_per_s"].iloc[0]
        axes.set_title(f"{title}\n{flow:,.0f} tokens/s", fontsize=LABEL_PT)
        axes.set_xlabel(f"layer (limited by {limit})", fontsize=TICKS_PT)
        axes.set(xlim=(-0.3, 24.3), ylim=(len(names) - 0.45, -0.55), xticks=range(0, 25, 6))
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(labelsize=TICKS_PT, length=0)
        axes.spines[["top", "right", "left"]].set_visible(False)
        flows[split] = flow
    patches = [
        Patch(facecolor=mix(colour, "#ffffff", 0.75), hatch=hatch, edgecolor="white", label=label)
        for (colour, hatch), label in zip(
            REGIONS.values(), ("beside the coordinator", "behind the slow link"), strict=True
        )
    ]
    patches.append(Patch(facecolor="white", edgecolor=CUT_COLOUR, linewidth=2, label="limits the flow (min cut)"))
    link = Line2D([], [], color="0.35", ls="--", lw=1.2, label="slow link, 0.1 Gbit/s each (filling: share in use)")
    legend_below(figure, 4, handles=[*patches, link], size_pt=SMALLEST_PT)
    best, first = flows["network-aware"], flows["uniform"]
    headline(
        figure, f"The same five machines carry {best / first:.1f} times the tokens if the split considers the network"
    )
    return figure


def _slow_links(axes: Axes, part: pd.DataFrame, names: list[str]) -> set[str]:
    """Draw a dashed line over each slow link, from a machine to one that continues where its layers end.

    Returns the machines whose line arrives at the left side.
    """
    beside = set()
    limits = bool(part["link_in_min_cut"].any())
    for source in rows_of(part):
        for target in rows_of(part):
            if source.region != target.region and target.start == source.end:
                top, row = names.index(source.node), names.index(target.node)
                style: dict[str, Any] = {"color": CUT_COLOUR if limits else "0.35", "lw": 2.0 if limits else 1.2}
                if row == top + 1:
                    axes.plot([source.end] * 2, [top + 0.36, row - 0.36], "--", **style)
                else:
                    # The line passes the machines in between and arrives at the side of the target.
                    x = source.end - 0.8
                    axes.plot([x, x, source.end], [top + 0.36, row, row], "--", **style)
                    beside.add(target.node)
    return beside


PLACES = {"A100-40G-0": (2.9, 1.0), "T4-0": (6.2, 1.9), "T4-1": (6.2, 0.1)}
ENDS = {"out": (-0.2, 1.0), "in": (9.4, 1.0)}
HALF_WIDTH, HALF_HEIGHT = 0.75, 0.42


def draw_flow_network(table: pd.DataFrame) -> Figure:
    """Machines as boxes and links as arrows; each shows its flow and capacity."""
    figure = Figure(figsize=(WIDTH_IN, 2.5))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-1.2, 10.4), ylim=(-0.62, 2.72))
    axes.axis("off")
    for name, side in (("coordinator\n(source)", "out"), ("coordinator\n(sink)", "in")):
        axes.text(
            *ENDS[side], name, ha="center", va="center", fontsize=LABEL_PT,
            bbox={"boxstyle": "round,pad=0.4", "facecolor": "0.92", "edgecolor": "0.4"},
        )  # fmt: skip
    machines = {row.source: row for row in rows_of(table) if row.source == row.target}
    for row in rows_of(table):
        colour = CUT_COLOUR if row.in_min_cut else "0.3"
        label = f"{row.flow_tokens_per_s:,.0f} / {_short(row.capacity_tokens_per_s)}"
        if row.source == row.target:
            _machine(axes, row, label, colour)
        else:
            _link(axes, row, label, colour)
        before, after = machines.get(row.source), machines.get(row.target)
        if before is not None and after is not None and before is not after and after.start < before.end:
            x, y = PLACES[row.target]
            text = f"enters at layer {before.end:.0f}:\n{row.source} has run layer {after.start:.0f}"
            axes.text(x + HALF_WIDTH + 0.15, y - 0.1, text, ha="left", va="top", fontsize=TICKS_PT, style="italic")
    cut = table[table["in_min_cut"]]["capacity_tokens_per_s"].sum()
    signs = "flow / capacity in tokens/s; outlined in vermilion: the min cut, which limits the flow"
    signs += "; dotted: unused" if (table["flow_tokens_per_s"] == 0).any() else ""
    axes.text(-1.1, -0.5, signs, fontsize=TICKS_PT, color="0.25")
    headline(
        figure,
        f"Three machines as a flow network: the two T4 are saturated, so the largest flow is {cut:,.0f} tokens/s",
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
    axes.text(x, y, f"{row.source}\n{span}\n{label}", ha="center", va="center", fontsize=TICKS_PT)


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
        *middle, label, fontsize=TICKS_PT, ha="center", va="center", color=colour,
        bbox={"boxstyle": "square,pad=0.12", "facecolor": "white", "edgecolor": "none"},
    )  # fmt: skip
