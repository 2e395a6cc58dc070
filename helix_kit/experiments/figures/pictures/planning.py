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
    at_least_text,
    headline,
    legend_below,
    new_figure,
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
    styles["paper-milp"]["label"] = "HiGHS on the paper's program, from the better heuristic"
    styles["pattern"]["label"] = "ours: pattern program"
    # A bound holds for plans whose machines hold what fits into their memory beside a KV cache.
    if (share[share["method"] == "separate"]["share"] > 100.01).any():
        styles["separate"]["label"] += " (over 100 %: overfills memory)"
    grouped_bars(
        axes, share, groups="case", series="method", value="share", order=METHODS, labels="{:.0f}", styles=styles
    )
    axes.axhline(100, color="0.2", lw=0.8, zorder=0.9)
    axes.set(ylabel="max flow, % of the proven bound", ylim=(0, 121))
    headline(figure, _headline(share))
    set_text_sizes(axes)
    legend_below(figure, 3)
    return figure


def _headline(share: pd.DataFrame) -> str:
    """What our program reaches, and how often the solver on the paper's program improves on its start."""
    wide = share.pivot_table(index="case", columns="method", values="share", sort=False)
    text = (
        f"On every cluster our pattern program reaches at least {at_least_text(wide['pattern'].min())} % of the bound"
    )
    if "paper-milp" in wide:
        start = wide[[m for m in ("swarm", "petals") if m in wide]].max(axis=1)
        better = int((wide["paper-milp"] > start * (1 + 1e-6)).sum())
        text += f"; HiGHS on the paper's program improves on its start in {better} of {len(wide)} cases"
    return text
