"""Max flow by placement method."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from helix_kit.plots.bars import WIDTH_IN, grouped_bars

if TYPE_CHECKING:
    import pandas as pd

METHODS = ("pattern", "paper-milp", "swarm", "petals", "separate")


def draw_methods(table: pd.DataFrame) -> Figure:
    """Bars by case and method, per cent of the best bound known."""
    figure = Figure(figsize=(WIDTH_IN, 3.2), layout="constrained")
    axes = figure.subplots()
    table = table.assign(case=table["cluster"] + "\n" + table["model"])
    bounds = table.groupby("case", sort=False)["bound_tokens_per_s"].min()
    share = table.assign(share=100 * table["flow_tokens_per_s"] / table["case"].map(bounds))
    grouped_bars(axes, share, groups="case", series="method", value="share", order=METHODS, labels="{:.0f}")
    axes.axhline(100, color="0.2", lw=0.8)
    axes.set(ylabel="max flow, % of the proven bound", ylim=(0, 118))
    axes.tick_params(labelsize=7)
    axes.yaxis.label.set_fontsize(7.5)
    axes.legend(frameon=False, fontsize=8, ncols=len(METHODS), loc="upper center", bbox_to_anchor=(0.5, 1.12))
    return figure
