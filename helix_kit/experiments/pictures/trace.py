"""Figure 5."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from helix_kit.plots.bars import WIDTH_IN, tidy
from helix_kit.plots.theme import KIND_COLOURS

if TYPE_CHECKING:
    import pandas as pd


def draw_trace(table: pd.DataFrame) -> Figure:
    """Lengths on the left, arrivals on the right."""
    figure = Figure(figsize=(WIDTH_IN, 2.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for colour, style, name in zip(KIND_COLOURS, ("-", "--"), ("input", "output"), strict=False):
        part = table[table["series"] == name]
        mean = (part["x"] * part["requests"]).sum() / part["requests"].sum()
        label = f"{name} (mean {mean:,.0f})"
        left.plot(part["x"], part["requests"] / part["requests"].sum(), style, color=colour, label=label, lw=1.3)
    left.set(xlabel="tokens", ylabel="share of requests", xlim=(0, 2048), ylim=(0, None))
    left.legend(frameon=False, fontsize=8)
    arrivals = table[table["series"] == "arrivals"]
    right.plot(arrivals["x"] / 60, arrivals["requests"] / 60, color=KIND_COLOURS[0], lw=1.0)
    right.set(xlabel="minutes", ylabel="requests/s", ylim=(0, None))
    for axes in (left, right):
        tidy(axes)
    return figure
