"""Figure 5: lengths and arrivals of the Azure conversation trace, from the statistics in the data folder."""

from __future__ import annotations

import pandas as pd

from helix_kit import _files
from helix_kit.experiments.figures.pictures.trace import draw_trace
from helix_kit.experiments.machinery.registry import Context, experiment

INTERVAL_S = 3
BIN_TOKENS = 32
MAX_TOKENS = {"input": 2048, "output": 1024}
"""The longest requests that the paper keeps. The last bin of the statistics reaches beyond them."""


@experiment(
    "azure-trace",
    title="Azure conversation trace: lengths and arrivals",
    paper="Figure 5",
    draw=draw_trace,
    data=("workload",),
    minutes=0.01,
    text="Left: lengths of the requests that the paper keeps (at most 2048 tokens in, 1024 out). Right: arrivals in "
    "each minute.",
)
def azure_trace(context: Context) -> pd.DataFrame:
    """Requests by length (bins of 32 tokens) and by minute; columns series, x, requests.

    The statistics count long requests in wider bins, of up to 122 tokens; their requests are spread evenly.
    """
    del context
    folder = _files.data_dir() / "workload"
    lengths = pd.read_csv(folder / "azure_conversation_lengths.csv")
    series = []
    for side, max_tokens in MAX_TOKENS.items():
        counts = _by_bin(lengths[f"{side}_from"], lengths[f"{side}_below"], lengths["requests"], max_tokens)
        series.append(counts.assign(series=side))
    arrivals = pd.read_csv(folder / "azure_conversation_arrivals.csv")
    minute = (arrivals["interval"] * INTERVAL_S // 60 * 60).rename("x")
    series.append(arrivals.groupby(minute)["requests"].sum().reset_index().assign(series="arrivals"))
    return pd.concat(series)[["series", "x", "requests"]]


def _by_bin(first: pd.Series, below: pd.Series, requests: pd.Series, max_tokens: int) -> pd.DataFrame:
    """Requests in bins of `BIN_TOKENS` (x: the middle of the bin) from counts of lengths in [first, below)."""
    total = dict.fromkeys(range(0, max_tokens + 1, BIN_TOKENS), 0.0)
    for start, end, count in zip(first, below.clip(upper=max_tokens + 1), requests, strict=True):
        for left in range(start // BIN_TOKENS * BIN_TOKENS, end, BIN_TOKENS):
            share = (min(end, left + BIN_TOKENS) - max(start, left)) / (end - start)
            total[left] += float(count) * share
    return pd.DataFrame({"x": [left + BIN_TOKENS / 2 for left in total], "requests": list(total.values())})
