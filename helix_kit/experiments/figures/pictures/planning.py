"""Max flow by placement method."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from helix_kit.experiments.figures.pictures.looks import (
    METHODS as LOOKS,
)
from helix_kit.experiments.figures.pictures.looks import (
    MODELS,
    PLACES,
    headline,
    legend_below,
    new_figure,
    range_text,
    set_text_sizes,
)
from helix_kit.plots.bars import grouped_bars

if TYPE_CHECKING:
    import pandas as pd

METHODS = ("pattern", "paper-milp", "swarm", "petals", "separate")


def draw_methods(table: pd.DataFrame) -> Figure:
    """Bars by case and method, in per cent of the best known bound."""
    figure = new_figure(3.2)
    axes = figure.subplots()
    places = table["cluster"].map(PLACES).str.replace(", ", "\n").str.replace(" of ", "\nof ")
    table = table.assign(case=places + "\n" + table["model"].map(MODELS))
    bounds = table.groupby("case", sort=False)["bound_tokens_per_s"].min()
    share = table.assign(share=100 * table["flow_tokens_per_s"] / table["case"].map(bounds))
    styles = {name: LOOKS[name].bar() for name in METHODS}
    styles["paper-milp"]["label"] = "paper's program, HiGHS"
    styles["pattern"]["label"] = "ours: pattern program"
    grouped_bars(
        axes, share, groups="case", series="method", value="share", order=METHODS, labels="{:.0f}", styles=styles
    )
    axes.axhline(100, color="0.2", lw=0.8, zorder=0.9)
    axes.set(ylabel="max flow, % of the proven bound", ylim=(0, 121))
    ours = share[share["method"] == "pattern"]["share"]
    headline(figure, f"On every cluster our pattern program reaches {range_text(ours, '{:.0f}')} % of the proven bound")
    set_text_sizes(axes)
    legend_below(figure, len(METHODS))
    return figure
