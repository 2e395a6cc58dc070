"""Figure 4, the placements of section 6.6, and the GPU catalogue."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, PathPatch
from matplotlib.path import Path
from matplotlib.patheffects import withStroke

from helix_kit.experiments.figures.pictures.looks import (
    SMALLEST_PT,
    TITLE_PT,
    draw_machine,
    finish_axes,
    grid_both_ways,
    headline,
    legend_below,
    log_ticks,
    new_figure,
    outline_machine,
    set_text_sizes,
)
from helix_kit.plots.bars import HATCHES, rows_of
from helix_kit.plots.scene import Curve, Point, Text
from helix_kit.plots.theme import KIND_COLOURS, mix

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

PIXELS = 700
BAR_HEIGHT = 0.76
"""Height of a machine's bar; from one machine to the next it is 1."""
REQUESTS = {
    "request 1": ("#000000", "-", -3.0),
    "request 2": (mix(KIND_COLOURS[3], "#000000", 0.75), (0, (3.0, 1.2)), 3.0),
}
"""Colour, dashes, and the shift in pixels where both take the same link."""


def draw_topology(table: pd.DataFrame) -> Figure:
    """The plan as swimlanes, and over it the pipelines of two requests."""
    from helix_kit.cluster import Cluster
    from helix_kit.flow import Flow
    from helix_kit.model import Model
    from helix_kit.placement.plan import Plan
    from helix_kit.placement.problem import Problem
    from helix_kit.plots.png import to_figure
    from helix_kit.plots.swimlanes import layout

    problem = Problem.of(Cluster.preset("geo24"), Model.preset("llama2-70b"))
    spans = {row.source: (int(row.start), int(row.end)) for row in rows_of(table[table["what"] == "node"])}
    edges = {(row.source, row.target): float(row.tokens_per_s) for row in rows_of(table[table["what"] == "link"])}
    total = sum(rate for (source, _), rate in edges.items() if source == "coordinator")
    plan = Plan.from_placement(problem, spans, method="published", flow=Flow(total, edges, {}, ()))
    scene = layout(plan, width=PIXELS)
    figure = to_figure([scene])
    curves: dict[tuple[str, str], Curve] = {}
    for group in scene.groups:
        data = dict(group.data)
        if group.role == "edge":
            curves[data["source"], data["target"]] = next(i for i in group.items if isinstance(i, Curve))
    pipelines = {}
    for name in REQUESTS:
        nodes = ["coordinator", *table.loc[table["what"] == name, "source"], "coordinator"]
        pipelines[name] = list(pairwise(nodes))
    shared = {name for edge in pipelines["request 1"] for name in edge} & {
        n for edge in pipelines["request 2"] for n in edge
    }
    for index, (name, (colour, dashes, beside)) in enumerate(REQUESTS.items()):
        shifts = [(beside * (a in shared), beside * (b in shared)) for a, b in pipelines[name]]
        path = _way([curves[edge].points for edge in pipelines[name]], shifts)
        _stroke(figure.axes[0], path, colour, dashes)
        x, y = 330 + 160 * index, scene.height - 18
        _stroke(figure.axes[0], Path([(x, y), (x + 26, y)]), colour, dashes)
        label = f"{name}: {len(pipelines[name]) - 1} machines"
        figure.axes[0].text(x + 32, y + 3.8, label, fontsize=7.1, color="0.2", zorder=99)
    names = {i.text for group in scene.groups if group.role == "node" for i in group.items if isinstance(i, Text)}
    for text in figure.axes[0].texts:
        if text.get_text() in names:  # above the lines
            text.set(zorder=99, path_effects=[withStroke(linewidth=2.4, foreground="white")])
    return figure


def _way(curves: list[tuple[Point, Point, Point, Point]], shifts: list[tuple[float, float]]) -> Path:
    """One line along ribbons and through the bars between them; `shifts` move both ends of each ribbon down."""
    points: list[Point] = []
    codes: list[Any] = []
    for ((x0, y0), (x1, y1), (x2, y2), (x3, y3)), (first, last) in zip(curves, shifts, strict=True):
        points += [(x0, y0 + first), (x1, y1 + first), (x2, y2 + last), (x3, y3 + last)]
        codes += [Path.LINETO if codes else Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4]
    return Path(points, codes)


def _stroke(axes: Axes, path: Path, colour: str, dashes: Any) -> None:
    """Draw a line with a white edge, so that it stands out on ribbons and bars."""
    for ink, width, style in (("white", 4.2, "-"), (colour, 1.9, dashes)):
        axes.add_patch(
            PathPatch(
                path, facecolor="none", edgecolor=ink, linewidth=width, linestyle=style, capstyle="butt", zorder=60
            )
        )


def draw_placements(table: pd.DataFrame) -> Figure:
    """One panel for each method: machines from top to bottom, layers from left to right, filled to the used share."""
    methods, kinds = list(dict.fromkeys(table["method"])), list(dict.fromkeys(table["kind"]))
    names = list(dict.fromkeys(table.sort_values(["region", "kind"], kind="stable")["node"]))
    flows: dict[str, float] = {}
    figure = new_figure(4.4)
    for axes, method in zip(figure.subplots(1, len(methods), sharey=True), methods, strict=True):
        part = table[table["method"] == method]
        for row in rows_of(part):
            y, kind = names.index(row.node), kinds.index(row.kind)
            colour, used = KIND_COLOURS[kind], min(1.0, row.flow_tokens_per_s / row.capacity_tokens_per_s)
            layers, look = (row.start, row.end), (colour, HATCHES[kind])
            draw_machine(axes, layers, y, used, look, height=BAR_HEIGHT, full=0.8)
            outline_machine(axes, layers, y, height=BAR_HEIGHT, colour=colour, linewidth=0.6)
        flows[method] = float(part["max_flow_tokens_per_s"].iloc[0])
        axes.set_title(f"{method}: {flows[method]:,.0f} tokens/s", fontsize=TITLE_PT)
        axes.set(xlim=(0, table["end"].max()), ylim=(len(names) - 0.4, -0.6), xlabel="layer")
        axes.set_yticks(range(len(names)), names)
        set_text_sizes(axes)
        axes.tick_params(labelsize=SMALLEST_PT, length=0)
        axes.set_xticks(range(0, int(table["end"].max()) + 1, 20))
        axes.spines[["top", "right"]].set_visible(False)
        _name_regions(axes, table, names, named=method == methods[-1])
    rest = [flow for method, flow in flows.items() if method != "Helix"]
    headline(
        figure,
        f"Helix gives fast machines long layer ranges; its flow is {min(flows['Helix'] / f for f in rest):.1f} to "
        f"{max(flows['Helix'] / f for f in rest):.1f} times that of Petals and Swarm",
    )
    patches = [
        Patch(facecolor=KIND_COLOURS[i], hatch=HATCHES[i], edgecolor="white", label=kind)
        for i, kind in enumerate(kinds)
    ]
    patches.append(Patch(facecolor="0.9", edgecolor="0.5", label="pale: capacity that no flow uses"))
    legend_below(figure, len(patches), handles=patches)
    return figure


def _name_regions(axes: Axes, table: pd.DataFrame, names: list[str], *, named: bool) -> None:
    """Draw a line between regions, and with `named` write their names at the right end."""
    region_of = dict(zip(table["node"], table["region"], strict=True))
    for first in [i for i, n in enumerate(names) if i == 0 or region_of[n] != region_of[names[i - 1]]]:
        if first:
            axes.axhline(first - 0.5, color="0.6", lw=0.8, ls=":")
        if named:
            last = max(i for i, n in enumerate(names) if region_of[n] == region_of[names[first]])
            axes.text(
                1.02, (first + last) / 2, region_of[names[first]], fontsize=SMALLEST_PT, ha="left", va="center",
                rotation=270, transform=axes.get_yaxis_transform(),
            )  # fmt: skip


PAPER_GPUS = ("T4", "L4", "V100-16G", "A100-40G")
"""Kinds of GPU in the published clusters."""


def _label_gpus(axes: Axes, table: pd.DataFrame) -> None:
    """Write each GPU's name beside its mark, where it covers neither a mark nor another name."""
    points = axes.transData.transform(table[["memory_bandwidth_gb_per_s", "fp16_tflops"]].to_numpy())
    points *= 72 / axes.figure.dpi  # pixels -> points
    radii = table["memory_gb"].to_numpy() ** 0.5 / 2  # the area of a mark is a square point for each GB
    taken = [(x - r, y - r, x + r, y + r) for (x, y), r in zip(points, radii, strict=True)]
    for row, (x, y), radius in zip(rows_of(table), points, radii, strict=True):
        name = row.gpu if row.gpu.endswith("G") and "-" in row.gpu else f"{row.gpu}, {row.memory_gb:g} GB"
        wide, high, gap = 4.5 * len(name), 8.0, radius + 2
        left, low = -gap - wide, -gap - high
        places = [(gap, -high / 2), (left, -high / 2), (-wide / 2, gap), (-wide / 2, low)]
        places += [(gap, gap / 2), (gap, low + high / 2), (left, gap / 2), (left, low + high / 2)]

        def box(place: tuple[float, float]) -> tuple[float, float, float, float]:
            return x + place[0], y + place[1], x + place[0] + wide, y + place[1] + high  # noqa: B023

        def overlap(place: tuple[float, float]) -> float:
            a = box(place)
            return sum(
                max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1])) for b in taken
            )

        best = min(places, key=overlap)
        taken.append(box(best))
        where = (row.memory_bandwidth_gb_per_s, row.fp16_tflops)
        axes.annotate(name, where, best, textcoords="offset points", fontsize=7, va="bottom", ha="left", zorder=4)


def draw_catalogue(table: pd.DataFrame) -> Figure:
    """Compute against bandwidth; the area of a mark is the memory."""
    figure = new_figure(4.5)
    axes = figure.subplots()
    for label, part in (("in the paper's clusters", table[table["gpu"].isin(PAPER_GPUS)]),
                        ("others", table[~table["gpu"].isin(PAPER_GPUS)])):  # fmt: skip
        old = label != "others"
        axes.scatter(
            part["memory_bandwidth_gb_per_s"], part["fp16_tflops"], s=part["memory_gb"], linewidths=1.0,
            color=KIND_COLOURS[0] if old else mix(KIND_COLOURS[1], "#ffffff", 0.6), marker="o" if old else "s",
            edgecolors=KIND_COLOURS[0] if old else "0.25", label=label, zorder=3,
        )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="memory bandwidth, GB/s", ylabel="FP16 compute, TFLOPS")
    axes.set(xlim=(90, 17000), ylim=(3, 4500))
    ticks = {"x": (100, 200, 500, 1000, 2000, 5000), "y": (5, 10, 20, 50, 100, 200, 500, 1000, 2000)}
    for which, values in ticks.items():
        log_ticks(axes, which, values, "{:,}")
    finish_axes(axes)
    grid_both_ways(axes)
    _label_gpus(axes, table)
    looks = ((KIND_COLOURS[0], "o", "in the paper's clusters"), (mix(KIND_COLOURS[1], "#ffffff", 0.6), "s", "others"))
    signs = [Line2D([], [], ls="", marker=m, color=c, mec="0.25", ms=6, label=name) for c, m, name in looks]
    axes.legend(handles=signs, frameon=False, fontsize=7, loc="upper left")
    spread = table["memory_bandwidth_gb_per_s"].max() / table["memory_bandwidth_gb_per_s"].min()
    headline(figure, f"{len(table)} kinds of GPU: memory bandwidth differs {spread:.0f}-fold (area of a mark: memory)")
    return figure
