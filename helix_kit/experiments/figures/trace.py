"""Figure 5: the lengths and the arrivals of the Azure conversation trace, from the statistics we ship."""

from __future__ import annotations

import pandas as pd

from helix_kit import _files
from helix_kit.experiments.figures.pictures.trace import draw_trace
from helix_kit.experiments.machinery.registry import Context, experiment

INTERVAL_S = 3
BIN_TOKENS = 32
MOST = {"input": 2048, "output": 1024}
"""Longest requests that the paper keeps; the last bin of the statistics reaches beyond."""


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
    """Requests by length (bins of 32 tokens) and by minute; columns series, x, requests.

    The statistics count long requests in wider bins, up to 122 tokens: those are spread evenly over their bin.
    """
    del context
    folder = _files.data_dir() / "workload"
    lengths = pd.read_csv(folder / "azure_conversation_lengths.csv")
    parts = []
    for side in ("input", "output"):
        counts = _by_bin(lengths[f"{side}_from"], lengths[f"{side}_below"], lengths["requests"], MOST[side])
        parts.append(counts.assign(series=side))
    arrivals = pd.read_csv(folder / "azure_conversation_arrivals.csv")
    minute = (arrivals["interval"] * INTERVAL_S // 60 * 60).rename("x")
    parts.append(arrivals.groupby(minute)["requests"].sum().reset_index().assign(series="arrivals"))
    return pd.concat(parts)[["series", "x", "requests"]]


def _by_bin(first: pd.Series, below: pd.Series, requests: pd.Series, most: int) -> pd.DataFrame:
    """Requests in bins of `BIN_TOKENS` (x: their middle) from counts of lengths in [first, below), spread evenly."""
    total = dict.fromkeys(range(0, most + 1, BIN_TOKENS), 0.0)
    for start, end, count in zip(first, below.clip(upper=most + 1), requests, strict=True):
        for left in range(start // BIN_TOKENS * BIN_TOKENS, end, BIN_TOKENS):
            share = (min(end, left + BIN_TOKENS) - max(start, left)) / (end - start)
            total[left] += float(count) * share
    return pd.DataFrame({"x": [left + BIN_TOKENS / 2 for left in total], "requests": list(total.values())})
