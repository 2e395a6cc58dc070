"""Scaling, robustness, modern models."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from helix_kit.plots.bars import HATCHES, WIDTH_IN, grouped_bars, tidy
from helix_kit.plots.theme import KIND_COLOURS

if TYPE_CHECKING:
    import pandas as pd

METHODS = {"own flow": "own plan", "pattern": "own plan", "swarm": "Swarm", "petals": "Petals",
           "separate": "separate pipelines"}  # fmt: skip


def draw_scaling(table: pd.DataFrame) -> Figure:
    """Seconds and gap over the number of machines."""
    figure = Figure(figsize=(WIDTH_IN, 2.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    seconds = [table.attrs.get(str(n), np.nan) for n in table["nodes"]]
    left.plot(table["nodes"], seconds, "o-", color=KIND_COLOURS[0], lw=1.3, ms=4)
    left.set(xscale="log", xlabel="machines", ylabel="seconds to plan and prove", ylim=(0, None))
    right.plot(table["nodes"], 100 * table["gap"], "s--", color=KIND_COLOURS[1], lw=1.3, ms=4)
    right.set(xscale="log", xlabel="machines", ylabel="gap to the proven bound, %", ylim=(0, None))
    for axes in (left, right):
        axes.set_xticks(table["nodes"], [f"{n}" for n in table["nodes"]])
        axes.minorticks_off()
        axes.tick_params(labelsize=7)
        axes.xaxis.label.set_fontsize(7.5)
        axes.yaxis.label.set_fontsize(7.5)
        tidy(axes)
    return figure


def draw_robustness(table: pd.DataFrame) -> Figure:
    """Mean flow over the worlds with a whisker from the worst to the planned, as a share of our plan's flow."""
    figure = Figure(figsize=(WIDTH_IN, 2.6), layout="constrained")
    axes = figure.subplots()
    clusters, methods = list(dict.fromkeys(table["cluster"])), list(dict.fromkeys(table["method"]))
    for index, method in enumerate(methods):
        for place, cluster in enumerate(clusters):
            part = table[table["cluster"] == cluster].set_index("method")
            if method not in part.index:
                continue
            unit = part["as_planned_tokens_per_s"].iloc[0] / 100
            row = (
                part.loc[method] / unit
                if part.dtypes.nunique() == 1
                else part.drop(columns="cluster").loc[method] / unit
            )
            x = place + (index - (len(methods) - 1) / 2) * 0.2
            axes.bar(
                x, row["mean"], 0.18, color=KIND_COLOURS[index], hatch=HATCHES[index], edgecolor="white", linewidth=0.4,
                label=METHODS.get(method, method) if place == 0 else None,
            )  # fmt: skip
            axes.vlines(x, row["worst"], row["as_planned_tokens_per_s"], color="0.15", lw=1.0)
            axes.plot([x, x], [row["worst"], row["as_planned_tokens_per_s"]], "_", color="0.15", ms=6)
    axes.set_xticks(range(len(clusters)), clusters)
    axes.set(ylabel="max flow, % of our plan's as planned")
    axes.tick_params(labelsize=7)
    axes.yaxis.label.set_fontsize(7.5)
    axes.margins(y=0.15)
    axes.legend(frameon=False, fontsize=7.5, ncols=len(methods), loc="upper center", bbox_to_anchor=(0.5, 1.16))
    tidy(axes)
    return figure


def draw_modern(table: pd.DataFrame) -> Figure:
    """A panel a model: flow by mix and method."""
    figure = Figure(figsize=(WIDTH_IN, 2.8), layout="constrained")
    models = list(dict.fromkeys(table["model"]))
    for axes, model in zip(figure.subplots(1, len(models)), models, strict=True):
        part = table[table["model"] == model]
        part = part.assign(method=part["method"].map(METHODS), mix=part["mix"].str.replace(", ", "\n"))
        order = [name for name in dict.fromkeys(METHODS.values()) if (part["method"] == name).any()]
        grouped_bars(axes, part, groups="mix", series="method", value="flow_tokens_per_s", order=order)
        axes.set(title=f"{model} (estimate)", ylabel="max flow, tokens/s")
        axes.title.set_fontsize(8.5)
        axes.yaxis.label.set_fontsize(7.5)
        axes.tick_params(labelsize=6.5)
        axes.legend(frameon=False, fontsize=6.5)
    return figure
