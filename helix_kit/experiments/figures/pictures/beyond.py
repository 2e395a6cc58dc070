"""Pictures beyond the paper: planning at scale, plans under wrong profiles, modern models."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from helix_kit.experiments.figures.pictures.looks import (
    METHODS,
    MODELS,
    PLACES,
    SMALLEST_PT,
    at_most_text,
    finish_axes,
    headline,
    legend_below,
    legend_of,
    log_ticks,
    new_figure,
    range_text,
    set_text_sizes,
)
from helix_kit.plots.bars import grouped_bars
from helix_kit.plots.theme import KIND_COLOURS

if TYPE_CHECKING:
    import pandas as pd


def draw_scaling(table: pd.DataFrame) -> Figure:
    """Seconds and gap over the number of machines."""
    figure = new_figure(2.6)
    left, right = figure.subplots(1, 2)
    nodes, gaps = table["nodes"], 100 * table["gap"]
    seconds = [table.attrs.get(str(n), np.nan) for n in nodes]
    left.plot(nodes, seconds, "o-", color=KIND_COLOURS[0], lw=1.3, ms=4)
    left.set(ylabel="seconds to plan and bound")
    right.plot(nodes, gaps, "s--", color=KIND_COLOURS[1], lw=1.3, ms=4)
    right.set(ylabel="gap to the proven bound, %")
    for axes, values, form in ((left, seconds, "{:.1f} s"), (right, gaps, "{:.2g} %")):
        for x, y in zip(nodes, values, strict=True):
            if np.isfinite(y):
                axes.annotate(
                    form.format(y), (x, y), (0, 6), textcoords="offset points", ha="center", fontsize=SMALLEST_PT,
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.3},
                )  # fmt: skip
        axes.set(xscale="log", xlabel="machines", xlim=(19, 1300))
        log_ticks(axes, "x", nodes, "{}")
        axes.set_ylim(0, 1.15 * axes.get_ylim()[1])
        finish_axes(axes)
    known = "" if np.isnan(seconds[-1]) else f" takes {seconds[-1]:.0f} s and"
    headline(
        figure,
        f"A plan for {nodes.iloc[-1]:,} machines{known} is within {at_most_text(gaps.iloc[-1])} % of its proven bound; "
        f"no plan is more than {at_most_text(gaps.max())} % from its bound",
    )
    return figure


def draw_robustness(table: pd.DataFrame) -> Figure:
    """Flow as planned (bar) and in worlds with other profiles: mean, worst 5 % and worst world."""
    figure = new_figure(2.9)
    axes = figure.subplots()
    clusters, methods = list(dict.fromkeys(table["cluster"])), list(dict.fromkeys(table["method"]))
    kept = []
    for place, cluster in enumerate(clusters):
        part = table[table["cluster"] == cluster].set_index("method")
        unit = float(part["as_planned_tokens_per_s"].iloc[0]) / 100
        for index, method in enumerate(methods):
            if method not in part.index:
                continue
            columns = ("as_planned_tokens_per_s", "mean", "p5", "worst")
            planned, mean, p5, worst = (float(part.loc[method, c]) / unit for c in columns)
            x = place + (index - (len(methods) - 1) / 2) * 0.21
            look = METHODS[method].bar()
            axes.bar(x, planned, 0.19, **{**look, "label": look["label"] if place == 0 else None})
            # White under black, so that the marks stand out on every filling.
            for ink, wider in (("white", 1.6), ("black", 0.0)):
                axes.plot([x, x], [worst, mean], "-", color=ink, lw=0.9 + wider)
                axes.plot([x, x], [p5, mean], "-", color=ink, lw=2.6 + wider)
            axes.plot(x, mean, "o", mfc="white", mec="black", ms=4, mew=0.9)
            axes.plot(x, worst, "_", color="black", ms=6, mew=1.1)
            if method == methods[0]:
                kept.append(worst)
    axes.plot([], [], "o", mfc="white", mec="black", ms=4, mew=0.9, label="mean over the worlds")
    axes.plot([], [], "-", color="black", lw=2.6, label="down to the worst 5 %")
    axes.plot([], [], "_", color="black", ms=6, mew=1.1, label="the worst")
    axes.set_xticks(range(len(clusters)), [PLACES.get(c, c) for c in clusters])
    axes.set(ylabel="max flow, % of our plan's as planned")
    finish_axes(axes)
    headline(
        figure,
        f"If profiles are wrong by up to 20 %, our plans keep {range_text(kept, '{:.0f}')} % of their flow in the "
        "worst world",
    )
    legend_below(figure, len(methods) + 3, size_pt=SMALLEST_PT)
    return figure


def draw_modern(table: pd.DataFrame) -> Figure:
    """One panel for each model: flow by mix and method."""
    figure = new_figure(3.1)
    models = list(dict.fromkeys(table["model"]))
    order = [name for name in METHODS if (table["method"] == name).any()]
    order.sort(key=lambda name: name != "pattern")
    gains = []
    for axes, model in zip(figure.subplots(1, len(models)), models, strict=True):
        part = table[table["model"] == model]
        part = part.assign(mix=part["mix"].str.replace(", ", "\n"))
        styles = {name: METHODS[name].bar() for name in order}
        grouped_bars(axes, part, groups="mix", series="method", value="flow_tokens_per_s", order=order, styles=styles)
        axes.set(title=f"{MODELS[model]}: estimate by roofline", ylabel="estimated max flow, tokens/s")
        axes.margins(y=0.28)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        set_text_sizes(axes)
        wide = part.pivot(index="mix", columns="method", values="flow_tokens_per_s")
        gains += list(wide["pattern"] / wide.drop(columns="pattern").max(axis=1))
    headline(
        figure,
        f"Estimates, not measured: our plan carries {range_text(gains)} times the best baseline's flow on modern mixes",
    )
    legend_of(figure, axes, len(order))
    return figure
