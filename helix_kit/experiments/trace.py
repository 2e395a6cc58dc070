"""Figure 5: the lengths and the arrivals of the Azure conversation trace, from the statistics we ship."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from helix_kit import _files
from helix_kit.experiments.registry import Context, experiment

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INTERVAL_S = 3
BIN_TOKENS = 32


def _draw(table: pd.DataFrame) -> Figure:
    from matplotlib.figure import Figure

    from helix_kit.plots.bars import WIDTH_IN, tidy
    from helix_kit.plots.theme import KIND_COLOURS

    figure = Figure(figsize=(WIDTH_IN, 2.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for colour, style, (name, title) in zip(
        KIND_COLOURS, ("-", "--"), {"input": "input", "output": "output"}.items(), strict=False
    ):
        part = table[table["series"] == name]
        mean = (part["x"] * part["requests"]).sum() / part["requests"].sum()
        label = f"{title} (mean {mean:,.0f})"
        left.plot(part["x"], part["requests"] / part["requests"].sum(), style, color=colour, label=label, lw=1.3)
    left.set(xlabel="tokens", ylabel="share of requests", xlim=(0, 2048), ylim=(0, None))
    left.legend(frameon=False, fontsize=8)
    arrivals = table[table["series"] == "arrivals"]
    right.plot(arrivals["x"] / 60, arrivals["requests"] / 60, color=KIND_COLOURS[0], lw=1.0)
    right.set(xlabel="minutes", ylabel="requests/s", ylim=(0, None))
    for axes in (left, right):
        tidy(axes)
    return figure


@experiment("azure-trace", title="Azure conversation trace: lengths and arrivals", paper="Figure 5", draw=_draw)
def azure_trace(context: Context) -> pd.DataFrame:
    """Requests by length (bins of 32 tokens) and by minute; columns series, x, requests."""
    del context
    folder = _files.data_dir() / "workload"
    lengths = pd.read_csv(folder / "azure_conversation_lengths.csv")
    parts = []
    for side in ("input", "output"):
        middle = (lengths[f"{side}_from"] + lengths[f"{side}_below"] - 1) / 2
        bins = (middle // BIN_TOKENS * BIN_TOKENS + BIN_TOKENS / 2).rename("x")
        part = lengths.groupby(bins)["requests"].sum().reset_index()
        parts.append(part.assign(series=side))
    arrivals = pd.read_csv(folder / "azure_conversation_arrivals.csv")
    minute = (arrivals["interval"] * INTERVAL_S // 60 * 60).rename("x")
    parts.append(arrivals.groupby(minute)["requests"].sum().reset_index().assign(series="arrivals"))
    return pd.concat(parts)[["series", "x", "requests"]]
