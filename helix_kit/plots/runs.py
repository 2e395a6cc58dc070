"""Several runs in one picture: a simulation, our runtime and another engine under the same load."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from helix_kit.errors import InputError
from helix_kit.plots.theme import KIND_COLOURS, THEMES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from helix_kit.report import Run

PANELS = {"ttft_s": "TTFT", "tpot_s": "TPOT", "e2el_s": "E2EL"}


def plot_runs(runs: Mapping[str, Run]) -> Figure:
    """Draw runs side by side: the share of requests within each TTFT, TPOT and E2EL, and output tokens/s.

    Parameters
    ----------
    runs
        Name -> a simulated, served or measured run.

    Returns
    -------
    matplotlib.figure.Figure
        Four panels.

    Raises
    ------
    InputError
        Without a run.

    Examples
    --------
    >>> from helix_kit.report import Run
    >>> [axes.get_title() for axes in plot_runs({"simulated": Run([]), "measured": Run([])}).axes]
    ['TTFT', 'TPOT', 'E2EL', 'output tokens/s']
    """
    from helix_kit.plots.notebook_figure import NotebookFigure

    if not runs:
        raise InputError("expected at least one run", field="runs")
    figure = NotebookFigure(figsize=(11, 6), layout="constrained")
    *panels, bars = figure.subplots(2, 2).ravel()
    colours = [KIND_COLOURS[i % len(KIND_COLOURS)] for i in range(len(runs))]
    for axes, (key, title) in zip(panels, PANELS.items(), strict=True):
        for (name, run), colour in zip(runs.items(), colours, strict=True):
            values = np.sort(run.measures()[key])
            values = values[values > 0]
            axes.plot(values, np.arange(1, len(values) + 1) / max(1, len(values)), color=colour, label=name)
        axes.set(title=title, xlabel="seconds", ylabel="share within", ylim=(0, 1.02))
        axes.set_xscale("log")
    bars.bar(list(runs), [run.summary()["output_tokens_per_s"] for run in runs.values()], color=colours)
    bars.set_title("output tokens/s")
    for axes in (*panels, bars):
        axes.grid(color=THEMES["light"]["grid"])
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False)
    return figure
