"""Bars of a table from `helix_kit.analysis.compare`: throughput, prompt and decode latency."""

from __future__ import annotations

from typing import TYPE_CHECKING

from helix_kit.plots.bars import grouped_bars

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

PANELS = (
    ("decode_tokens_per_s", "decode throughput, tokens/s"),
    ("prompt_s", "prompt latency, average s"),
    ("decode_s", "decode latency, average s"),
)


def plot_comparison(table: pd.DataFrame) -> Figure:
    """Draw a comparison: one panel for each measure, one group for each workload and policy, one bar for each plan.

    Parameters
    ----------
    table
        A table from `helix_kit.analysis.compare`. Rows without a run are left out.

    Returns
    -------
    matplotlib.figure.Figure
        Three panels.

    Examples
    --------
    >>> import pandas as pd
    >>> row = {"plan": "pattern", "workload": "steady", "policy": "helix"}
    >>> table = pd.DataFrame([{**row, "decode_tokens_per_s": 210.0, "prompt_s": 0.4, "decode_s": 0.2}])
    >>> [axes.get_title() for axes in plot_comparison(table).axes][0]
    'decode throughput, tokens/s'
    """
    from helix_kit.plots.notebook_figure import NotebookFigure

    shown = table[table["decode_tokens_per_s"].notna()]
    shown = shown.assign(group=shown["workload"] + "\n" + shown["policy"])
    plans = list(dict.fromkeys(table["plan"]))
    figure = NotebookFigure(figsize=(11, 3.4), layout="constrained")
    panels = figure.subplots(1, len(PANELS))
    for axes, (column, title) in zip(panels, PANELS, strict=True):
        grouped_bars(axes, shown, groups="group", series="plan", value=column, order=plans, labels=None)
        axes.set_title(title, fontsize=10)
        axes.tick_params(axis="x", labelsize=9)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False, fontsize=9)
    return figure
