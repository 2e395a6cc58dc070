"""Our own plans: flow as a share of the bound, and depth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from helix_kit.plots.bars import WIDTH_IN, grouped_bars

if TYPE_CHECKING:
    import pandas as pd

NAMES = {"published": "published Helix", "flow": "own plan, max flow", "served": "own plan, served"}


def draw_own_plans(table: pd.DataFrame) -> Figure:
    """Flow as a share of the bound; and the least number of machines that hold each layer."""
    figure = Figure(figsize=(WIDTH_IN, 2.8), layout="constrained")
    axes = figure.subplots()
    one = table.drop_duplicates(["setup", "model", "objective"])
    best = one.groupby(["setup", "model"])["bound_tokens_per_s"].transform("min")
    shown = one.assign(
        case=one["setup"] + "\n" + one["model"],
        share=100 * one["flow_tokens_per_s"] / best,
        plan=one["objective"].map(NAMES),
    )
    order = [name for name in NAMES.values() if (shown["plan"] == name).any()]
    grouped_bars(axes, shown, groups="case", series="plan", value="share", order=order, labels="{:.0f}")
    axes.axhline(100, color="0.2", lw=0.8)
    axes.set(ylabel="max flow, % of the proven bound", ylim=(0, 122))
    axes.tick_params(labelsize=7)
    axes.yaxis.label.set_fontsize(7.5)
    axes.legend(frameon=False, fontsize=7.5, ncols=len(order), loc="upper center", bbox_to_anchor=(0.5, 1.15))
    return figure
