"""Our own plans: their flow as a share of the bound, and what they serve."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from helix_kit.experiments.figures.pictures.looks import (
    METHODS,
    headline,
    legend_of,
    new_figure,
    range_text,
    set_text_sizes,
)
from helix_kit.plots.bars import grouped_bars

if TYPE_CHECKING:
    import pandas as pd

PLANS = {"published": "helix", "fair base": "helix, our split", "flow": "own flow", "served": "own served"}
LABELS = {
    "published": "Helix's plan, published",
    "fair base": "its placement, our links and split",
    "flow": "our plan: max flow",
    "served": "our plan: served",
}
SIZES = {"llama-30b": "30B", "llama2-70b": "70B"}
PLACES = {"single": "one\ncluster", "geo": "three\nregions", "hetero42": "seven\nkinds"}


def draw_own_plans(table: pd.DataFrame) -> Figure:
    """Left: max flow of each plan as a share of the bound. Right: its offline throughput over that of Helix's plan."""
    figure = new_figure(3.1)
    left, right = figure.subplots(1, 2)
    one = table[table["objective"].isin(PLANS)].drop_duplicates(["setup", "model", "objective"])
    keys = ["setup", "model"]
    helix = one[one["objective"] == "published"].set_index(keys)["offline_decode_tokens_per_s"]
    case = one["setup"].map(PLACES) + "\n" + one["model"].map(SIZES)
    shown = one.assign(
        case=case,
        share=100 * one["flow_tokens_per_s"] / one.groupby(keys)["bound_tokens_per_s"].transform("min"),
        served=one["offline_decode_tokens_per_s"]
        / [helix[s, m] for s, m in zip(one["setup"], one["model"], strict=True)],
    )
    styles = {name: {**METHODS[look].bar(), "label": LABELS[name]} for name, look in PLANS.items()}
    fixed: dict[str, Any] = {"groups": "case", "series": "objective", "order": list(PLANS), "styles": styles}
    grouped_bars(left, shown, value="share", labels="{:.0f}", **fixed)
    left.set(title="max flow", ylabel="max flow, % of the proven bound", ylim=(0, 121))
    left.axhline(100, color="0.2", lw=0.8, zorder=0.9)
    grouped_bars(right, shown, value="served", labels="{:.2f}", **fixed)
    right.set(title="offline throughput (our simulator)", ylabel="decode throughput, times Helix's plan")
    right.axhline(1, color="0.2", lw=0.8, zorder=0.9)
    right.margins(y=0.2)
    for axes in (left, right):
        set_text_sizes(axes)
    wide = shown.pivot(index="case", columns="objective", values=["share", "served"])
    headline(
        figure,
        f"Our served plans carry {range_text(wide['share', 'served'], '{:.0f}')} % of the proven bound and serve "
        f"{range_text(wide['served', 'served'])} times as much as Helix's plans",
    )
    legend_of(figure, left, 4)
    return figure
