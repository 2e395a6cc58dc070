"""Figure 4, the placements of section 6.6, and the GPU catalogue."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from helix_kit.plots.bars import HATCHES, WIDTH_IN, rows_of, tidy
from helix_kit.plots.theme import KIND_COLOURS, mix

if TYPE_CHECKING:
    import pandas as pd

PIXELS = 700


def draw_topology(table: pd.DataFrame) -> Figure:
    """The plan twice as swimlanes, with the pipeline of one request each."""
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
    scenes = [
        layout(plan, width=PIXELS, highlight=list(table.loc[table["what"] == name, "source"]))
        for name in ("request 1", "request 2")
    ]
    return to_figure(scenes)


def draw_placements(table: pd.DataFrame) -> Figure:
    """A panel a method: machines from top to bottom, layers from left to right, filled to their use."""
    methods, kinds = list(dict.fromkeys(table["method"])), list(dict.fromkeys(table["kind"]))
    names = list(dict.fromkeys(table.sort_values(["region", "kind"], kind="stable")["node"]))
    figure = Figure(figsize=(WIDTH_IN, 4.0), layout="constrained")
    for axes, method in zip(figure.subplots(1, len(methods), sharey=True), methods, strict=True):
        part = table[table["method"] == method]
        for row in rows_of(part):
            y, kind = names.index(row.node), kinds.index(row.kind)
            colour, used = KIND_COLOURS[kind], min(1.0, row.flow_tokens_per_s / row.capacity_tokens_per_s)
            width = row.end - row.start
            axes.add_patch(Rectangle((row.start, y - 0.38), width, 0.76, facecolor=mix(colour, "#ffffff", 0.18)))
            axes.add_patch(
                Rectangle(
                    (row.start, y + 0.38 - 0.76 * used), width, 0.76 * used, facecolor=mix(colour, "#ffffff", 0.8),
                    hatch=HATCHES[kind], edgecolor="white", linewidth=0,
                )
            )  # fmt: skip
            axes.add_patch(Rectangle((row.start, y - 0.38), width, 0.76, fill=False, edgecolor=colour, linewidth=0.6))
        axes.set_title(f"{method}: {part['max_flow_tokens_per_s'].iloc[0]:,.0f} tokens/s", fontsize=8.5)
        axes.set(xlim=(0, table["end"].max()), ylim=(len(names) - 0.4, -0.6), xlabel="layer")
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(labelsize=5.8, length=0)
        axes.xaxis.label.set_fontsize(7.5)
        axes.spines[["top", "right"]].set_visible(False)
    patches = [
        Patch(facecolor=KIND_COLOURS[i], hatch=HATCHES[i], edgecolor="white", label=kind)
        for i, kind in enumerate(kinds)
    ]
    figure.legend(handles=patches, loc="outside lower center", ncols=len(kinds), frameon=False, fontsize=7)
    return figure


def draw_catalogue(table: pd.DataFrame) -> Figure:
    """Compute against bandwidth; the area of a mark is the memory."""
    figure = Figure(figsize=(WIDTH_IN, 2.8), layout="constrained")
    axes = figure.subplots()
    axes.scatter(
        table["memory_bandwidth_gb_per_s"], table["fp16_tflops"], s=4 * table["memory_gb"],
        color=KIND_COLOURS[4], edgecolors=KIND_COLOURS[0],
    )  # fmt: skip
    for row in rows_of(table):
        # A label to the right would cover a neighbour that is close by there.
        reach = table["memory_bandwidth_gb_per_s"] / row.memory_bandwidth_gb_per_s
        near = (reach > 1) & (reach < 1.7) & ((table["fp16_tflops"] / row.fp16_tflops - 1).abs() < 0.1)
        radius = row.memory_gb**0.5  # points: the area of a mark is 4 points² for each GB
        offset, side = ((0, radius + 5), "center") if near.any() else ((radius + 3, -2), "left")
        axes.annotate(
            f"{row.gpu}, {row.memory_gb:g} GB", (row.memory_bandwidth_gb_per_s, row.fp16_tflops), offset,
            textcoords="offset points", fontsize=6.5, ha=side,
        )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="memory bandwidth, GB/s", ylabel="FP16, TFLOPS")
    axes.set(xlim=(240, 12000), ylim=(40, 1900))
    ticks = {"x": (300, 500, 1000, 2000, 5000), "y": (50, 100, 200, 500, 1000)}
    axes.set_xticks(ticks["x"], [str(t) for t in ticks["x"]])
    axes.set_yticks(ticks["y"], [str(t) for t in ticks["y"]])
    axes.minorticks_off()
    axes.tick_params(labelsize=7)
    axes.xaxis.label.set_fontsize(7.5)
    axes.yaxis.label.set_fontsize(7.5)
    tidy(axes)
    return figure
