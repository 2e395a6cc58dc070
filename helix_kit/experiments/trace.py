"""Figure 5: the lengths and the arrivals of the Azure conversation trace, from the statistics we ship."""

from __future__ import annotations

import pandas as pd

from helix_kit import _files
from helix_kit.experiments.pictures.trace import draw_trace
from helix_kit.experiments.registry import Context, experiment

INTERVAL_S = 3
BIN_TOKENS = 32


@experiment(
    "azure-trace",
    title="Azure conversation trace: lengths and arrivals",
    paper="Figure 5",
    draw=draw_trace,
    data=("workload",),
    minutes=0.01,
    text="Lengths of the requests that the paper keeps (at most 2048 tokens in, 1024 out), and arrivals by the minute.",
)
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
