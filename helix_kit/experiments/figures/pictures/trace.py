"""Figure 5: the Azure conversation trace."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from helix_kit.experiments.figures.pictures.looks import SMALLEST_PT, finish_axes, headline, new_figure
from helix_kit.plots.theme import KIND_COLOURS

if TYPE_CHECKING:
    import pandas as pd


def draw_trace(table: pd.DataFrame) -> Figure:
    """Lengths on the left, arrivals on the right."""
    figure = new_figure(2.6)
    left, right = figure.subplots(1, 2)
    means = {}
    for colour, style, name in zip(KIND_COLOURS, ("-", "--"), ("input", "output"), strict=False):
        part = table[table["series"] == name]
        total = part["requests"].sum()
        means[name] = (part["x"] * part["requests"]).sum() / total
        share = 100 * part["requests"] / total
        left.step(part["x"], share, style, where="mid", color=colour, lw=1.3, label=f"{name}, mean {means[name]:,.0f}")
        left.fill_between(part["x"], share, step="mid", color=colour, alpha=0.12, linewidth=0)
    left.set(xlabel="tokens", ylabel="% of requests, per 32 tokens", xlim=(0, 2048), ylim=(0, None))
    left.set_xticks(range(0, 2049, 512), [f"{t:,}" for t in range(0, 2049, 512)])
    left.legend(frameon=False, fontsize=7)
    arrivals = table[table["series"] == "arrivals"]
    whole = arrivals.iloc[:-1]  # the trace ends within its last minute
    rate = arrivals["requests"].sum() / 60 / len(arrivals)
    right.step(whole["x"] / 60, whole["requests"] / 60, where="post", color=KIND_COLOURS[0], lw=1.1)
    right.axhline(rate, color="0.35", lw=0.9, ls=":")
    right.text(len(arrivals), rate + 0.1, f"mean {rate:.1f}", fontsize=SMALLEST_PT, color="0.25", ha="right")
    right.set(xlabel="minutes", ylabel="requests/s", xlim=(0, len(arrivals)), ylim=(0, None))
    for axes in (left, right):
        finish_axes(axes)
    headline(
        figure,
        f"Conversation requests: {means['input']:,.0f} tokens in, {means['output']:,.0f} out on average; "
        f"their rate differs {whole['requests'].max() / whole['requests'].min():.1f}-fold within the hour",
    )
    return figure
