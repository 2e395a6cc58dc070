"""Solvers: problem sizes, quality, ablations, value and bound over time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from helix_kit.plots.bars import HATCHES, WIDTH_IN, rows_of, tidy
from helix_kit.plots.theme import KIND_COLOURS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


def _small(axes: Axes) -> None:
    axes.tick_params(labelsize=6.5)
    axes.xaxis.label.set_fontsize(7.5)
    axes.yaxis.label.set_fontsize(7.5)
    axes.title.set_fontsize(8.5)
    tidy(axes)


def draw_sizes(table: pd.DataFrame) -> Figure:
    """Constraints and variables, ours and published."""
    figure = Figure(figsize=(WIDTH_IN, 2.6), layout="constrained")
    cases = [f"{row.cluster}\n{row.links_per_node} links" for row in rows_of(table)]
    for axes, what in zip(figure.subplots(1, 2), ("constraints", "variables"), strict=True):
        for index, (column, label) in enumerate(((f"{what}_published", "published"), (what, "ours"))):
            x = np.arange(len(cases)) + (index - 0.5) * 0.4
            bars = axes.bar(
                x, table[column], 0.38, color=KIND_COLOURS[4 - 4 * index], hatch=HATCHES[2 * index],
                edgecolor="white", linewidth=0.4, label=label,
            )  # fmt: skip
            axes.bar_label(bars, fontsize=5, padding=1)
        axes.set_xticks(range(len(cases)), cases)
        axes.set(ylabel=what)
        axes.legend(frameon=False, fontsize=7)
        _small(axes)
        axes.tick_params(axis="x", labelsize=5.8)
    return figure


def draw_quality(table: pd.DataFrame) -> Figure:
    """Flow as a share of the proven optimum, a bar a method."""
    figure = Figure(figsize=(WIDTH_IN, 2.6), layout="constrained")
    axes = figure.subplots()
    share = 100 * table["share_of_optimum"]
    families = ["Gurobi", "paper's program", "pattern", ""]
    for y, (method, value) in enumerate(zip(table["method"], share, strict=True)):
        family = next(i for i, name in enumerate(families) if name in method)
        axes.barh(y, value, 0.7, color=KIND_COLOURS[family], hatch=HATCHES[family], edgecolor="white", linewidth=0.4)
        # The published separate pipelines put more layers on some machines than their maximum.
        note = " (overfills machines)" if value > 100.1 else ""
        axes.text(value + 0.8, y, f"{value:.1f} %{note}", va="center", fontsize=6.5)
    axes.set_yticks(range(len(table)), table["method"])
    axes.invert_yaxis()
    axes.axvline(100, color="0.2", lw=0.8)
    axes.set(xlabel="max flow, % of the proven optimum (286.6 tokens/s)", xlim=(0, 130))
    _small(axes)
    axes.grid(visible=False, axis="y")
    return figure


VARIANTS = {
    "pruned, with initial values": "Gurobi, pruned,\ninitial values",
    "not pruned": "Gurobi,\nnot pruned",
    "no initial values": "Gurobi, pruned,\nno initial values",
    "pattern program, all links": "our pattern\nprogram",
}


def draw_ablations(table: pd.DataFrame) -> Figure:
    """Per cluster: the flow of each variant with Gurobi's time to it, and decode throughput."""
    figure = Figure(figsize=(WIDTH_IN, 4.2), layout="constrained")
    grid = figure.subplots(2, 2)
    for column, cluster in enumerate(dict.fromkeys(table["cluster"])):
        part = table[table["cluster"] == cluster].set_index("variant")
        top, bottom = grid[0][column], grid[1][column]
        shown = [v for v in VARIANTS if v in part.index]
        for x, variant in enumerate(shown):
            flow, seconds = part.loc[variant, "flow_tokens_per_s"], part.loc[variant, "seconds_to_flow"]
            ours = variant.startswith("pattern")
            top.bar(
                x, flow, 0.6, color=KIND_COLOURS[2 if ours else 4], hatch=HATCHES[4 if ours else 0],
                edgecolor="white", linewidth=0.4,
            )  # fmt: skip
            note = "" if np.isnan(seconds) else f"\nafter {seconds:,.0f} s"
            top.annotate(f"{flow:,.0f}{note}", (x, flow), (0, 2), textcoords="offset points", ha="center", fontsize=6)
        top.set_xticks(range(len(shown)), [VARIANTS[v] for v in shown])
        top.set(title=cluster, ylabel="max flow, tokens/s")
        top.margins(y=0.22)
        served = [v for v in shown if not np.isnan(part.loc[v, "decode_ours"])]
        for index, (name, label) in enumerate(
            (("decode_published", "published simulation"), ("decode_ours", "our simulator"))
        ):
            bars = bottom.bar(
                np.arange(len(served)) + (index - 0.5) * 0.3, [part.loc[v, name] for v in served], 0.28, label=label,
                color=KIND_COLOURS[4 - 4 * index], hatch=HATCHES[2 * index], edgecolor="white", linewidth=0.4,
            )  # fmt: skip
            bottom.bar_label(bars, fmt="%.0f", fontsize=6, padding=1)
        bottom.set_xticks(range(len(served)), [VARIANTS[v] for v in served])
        bottom.set(title=cluster, ylabel="decode throughput, tokens/s")
        bottom.margins(y=0.3)
        bottom.legend(frameon=False, fontsize=6.5, loc="upper right", ncols=2)
        _small(top)
        _small(bottom)
    return figure


def draw_convergence(table: pd.DataFrame) -> Figure:
    """A panel a cluster: value and bound over seconds, both axes logarithmic."""
    clusters = list(dict.fromkeys(table["cluster"]))
    figure = Figure(figsize=(WIDTH_IN, 4.4), layout="constrained")
    for axes, cluster in zip(figure.subplots(2, 2).flat, clusters, strict=False):
        part = table[(table["cluster"] == cluster) & table["seconds"].notna()]
        part = part[part["flow_tokens_per_s"] > 1]  # the first incumbents carry next to nothing
        steps = [
            ("Gurobi (published)", KIND_COLOURS[1], "s", part[["seconds", "flow_tokens_per_s", "bound_tokens_per_s"]]),
            ("pattern program (ours)", KIND_COLOURS[0], "o", table.attrs.get(cluster, [])),
        ]
        for label, colour, mark, values in steps:
            points = np.array(values, dtype=float).reshape(-1, 3)
            seconds = np.maximum(points[:, 0], 0.01)
            best = np.where(points[:, 1] > 0, points[:, 1], np.nan)
            style = {"color": colour, "lw": 1.2, "where": "post"}
            axes.step(seconds, best, "-", marker=mark, ms=2.5, label=label, **style)
            axes.step(seconds, points[:, 2], "--", **style)
        axes.set(xscale="log", yscale="log", title=cluster, xlabel="seconds", ylabel="tokens/s")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.minorticks_off()
        _small(axes)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, [f"{t}: solid value, dashed bound" for t in labels], loc="outside lower center", ncols=2,
                  frameon=False, fontsize=7)  # fmt: skip
    return figure
