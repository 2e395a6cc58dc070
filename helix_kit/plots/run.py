"""A run in one figure: throughput over time, latencies, the nodes' use of time, KV cache in use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from helix_kit.plots.theme import CUT_COLOUR, KIND_COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from helix_kit.report import Run

BINS = 60
MAX_NODES = 24
"""Nodes that are shown; of a larger cluster the busiest ones."""
BUSY, BLOCKED, STARVED = KIND_COLOURS[0], CUT_COLOUR, "#D9DDE2"
PROMPT, DECODE = KIND_COLOURS[1], KIND_COLOURS[0]


def plot_run(run: Run) -> Figure:
    """Draw a run: throughput over time, latencies, the nodes' use of time, and KV cache in use.

    Parameters
    ----------
    run
        A simulated or a real run. A panel without data says so.

    Returns
    -------
    matplotlib.figure.Figure
        Four panels.

    Examples
    --------
    >>> from helix_kit.report import Run
    >>> figure = plot_run(Run([]))
    >>> figure.axes[0].get_title(), figure.axes[0].texts[0].get_text()
    ('Tokens that came back', 'no token came back')
    """
    from helix_kit.plots.notebook_figure import NotebookFigure

    figure = NotebookFigure(figsize=(11, 7), layout="constrained")
    axes = figure.subplots(2, 2)
    throughput(run, axes[0, 0])
    latencies(run, axes[0, 1])
    node_time(run, axes[1, 0])
    kv_use(run, axes[1, 1])
    summary = run.summary()
    title = (
        f"{summary['decode_tokens_per_s']:.1f} decode tokens/s, {summary['finished']} of {summary['requests']} finished"
    )
    figure.suptitle(title + (" (partial run)" if run.partial else ""))
    return figure


def throughput(run: Run, axes: Axes) -> None:
    """Draw tokens/s over time, with the measured window."""
    times = run.tokens.time_s
    axes.set(title="Tokens that came back", xlabel="time (s)", ylabel="tokens/s")
    if len(times) == 0:
        return _note(axes, "no token came back")
    counts, edges = np.histogram(times, bins=min(BINS, max(1, int(times.max()))))
    axes.stairs(counts / np.diff(edges), edges, fill=True, color=DECODE, alpha=0.6)
    axes.axvspan(*run.window, color="#000000", alpha=0.04, label="window")
    axes.legend(loc="lower right", frameon=False)
    return None


def latencies(run: Run, axes: Axes) -> None:
    """Draw the share of first tokens and of decode steps that took at most a time."""
    axes.set(title="Latency", xlabel="seconds", ylabel="share that took at most this", ylim=(0, 1))
    shown = False
    for phase, colour, label in [("prompt", PROMPT, "to the first token"), ("decode", DECODE, "token to token")]:
        values = np.sort(run.latencies(phase))
        values = values[values > 0]
        if len(values):
            shown = True
            axes.plot(values, np.arange(1, len(values) + 1) / len(values), color=colour, label=label)
    if not shown:
        return _note(axes, "no latency in the window")
    axes.set_xscale("log")
    axes.legend(loc="lower right", frameon=False)
    return None


def node_time(run: Run, axes: Axes) -> None:
    """Draw the shares of the window in which each node was busy, blocked and starved."""
    axes.set(title="Where the nodes' time went", xlabel="share of the window", xlim=(0, 1))
    if not run.nodes:
        return _note(axes, "not recorded")
    names = sorted(run.nodes, key=lambda n: -run.nodes[n].busy)[:MAX_NODES][::-1]
    left = np.zeros(len(names))
    uses = [run.nodes[name] for name in names]
    for label, colour, values in [
        ("busy", BUSY, [use.busy for use in uses]),
        ("blocked", BLOCKED, [use.blocked for use in uses]),
        ("starved", STARVED, [use.starved for use in uses]),
    ]:
        shares = np.maximum(0.0, values)
        axes.barh(names, shares, left=left, color=colour, label=label)
        left += shares
    axes.tick_params(axis="y", labelsize=7)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, -0.35), ncols=3, frameon=False)
    return None


def kv_use(run: Run, axes: Axes) -> None:
    """Draw the KV cache in use over time: of the fullest node, and the median of the nodes."""
    axes.set(title="KV cache in use", xlabel="time (s)", ylabel="share of the node's capacity", ylim=(0, 1.05))
    shares = {
        name: samples[:, 1] / run.nodes[name].kv_capacity
        for name, samples in run.kv_samples.items()
        if name in run.nodes and run.nodes[name].kv_capacity > 0
    }
    if not shares:
        return _note(axes, "not recorded")
    length = min(len(s) for s in shares.values())
    table = np.array([s[:length] for s in shares.values()])
    times = next(iter(run.kv_samples[name] for name in shares))[:length, 0]
    fullest = list(shares)[int(table.mean(axis=1).argmax())]
    axes.plot(times, shares[fullest][:length], color=CUT_COLOUR, label=f"fullest: {fullest}")
    axes.plot(times, np.median(table, axis=0), color=DECODE, label="median of the nodes")
    axes.legend(loc="lower right", frameon=False)
    return None


def _note(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, color="#777777")
