"""Saturation curves: throughput, latencies and attainment against the load, one colour a plan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from helix_kit.plots.theme import KIND_COLOURS, THEMES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from helix_kit.sweeps import PlanCurve, Sweep

MARKERS = {"stable": "o", "backlogged": "s", "overloaded": "X"}


def plot_sweep(sweep: Sweep) -> Figure:
    """Draw a sweep: output tokens/s, TTFT, TPOT, and attainment or requests/s, against the rate or the concurrency.

    Latencies have a full line for the median and a dashed one for the 99th percentile; bands are 95 % intervals over
    the seeds. Dotted vertical lines are knees. The markers tell stable, backlogged and overloaded loads apart.

    Parameters
    ----------
    sweep
        A result of `helix_kit.sweep`.

    Returns
    -------
    matplotlib.figure.Figure
        Four panels.

    Examples
    --------
    >>> from helix_kit.sweeps import Sweep
    >>> row = {"plan": "mine", "rate_per_s": 1.0, "concurrency": None, "seed": 0, "requests_per_s": 0.9,
    ...        "output_tokens_per_s": 90.0, "ttft_p50_s": 1.0, "ttft_p99_s": 2.0, "tpot_p50_s": 0.1,
    ...        "tpot_p99_s": 0.2, "backlog": [1.0, 5.0, 5.0, 50.0, 0.0, 1.0]}
    >>> [axes.get_ylabel() for axes in plot_sweep(Sweep((row,))).axes]
    ['output tokens/s', 'TTFT (s)', 'TPOT (s)', 'requests/s served']
    """
    from matplotlib.lines import Line2D

    from helix_kit.plots.notebook_figure import NotebookFigure

    figure = NotebookFigure(figsize=(11, 7), layout="constrained")
    throughput, ttft, tpot, last = figure.subplots(2, 2).ravel()
    curves = list(sweep.curves.values())
    closed = any(curve.is_closed for curve in curves)
    handles: list[Any] = []
    for curve, colour in zip(curves, _colours(len(curves)), strict=True):
        _line(throughput, curve, "output_tokens_per_s", colour)
        for axes, name in ((ttft, "ttft"), (tpot, "tpot")):
            _line(axes, curve, f"{name}_p50_s", colour)
            _line(axes, curve, f"{name}_p99_s", colour, dashed=True)
        _line(last, curve, "requests_per_s" if sweep.slo is None else "attainment", colour)
        if curve.knee_per_s is not None:
            for axes in (throughput, ttft, tpot, last):
                axes.axvline(curve.knee_per_s, color=colour, linestyle=":", linewidth=1)
        handles.append(Line2D([], [], color=colour, label=_label(curve)))
    for axes, label in ((throughput, "output tokens/s"), (ttft, "TTFT (s)"), (tpot, "TPOT (s)")):
        axes.set_ylabel(label)
    for axes in (ttft, tpot):
        axes.set_yscale("log")
    _draw_limits(sweep, ttft, tpot, last)
    for axes in (throughput, ttft, tpot, last):
        axes.set_xlabel("requests at once" if closed else "requests/s")
        axes.grid(color=THEMES["light"]["grid"])
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlim(left=0)
    throughput.set_ylim(bottom=0)
    ink = THEMES["light"]["muted"]
    if not closed:
        handles += [Line2D([], [], color=ink, marker=m, linestyle="", label=name) for name, m in MARKERS.items()]
    handles += [Line2D([], [], color=ink, label="median"),
                Line2D([], [], color=ink, linestyle="--", label="99th percentile")]  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return figure


def _draw_limits(sweep: Sweep, ttft: Axes, tpot: Axes, last: Axes) -> None:
    """The limits of the SLO as horizontal lines."""
    if sweep.slo is None:
        last.set(ylabel="requests/s served", ylim=(0, None))
        return
    last.set(ylabel="share that keeps the SLO", ylim=(0, 1.05))
    last.axhline(sweep.slo.at, color=THEMES["light"]["muted"], linewidth=1)
    for axes, limit in ((ttft, sweep.slo.ttft_s), (tpot, sweep.slo.tpot_s)):
        if limit is not None:
            axes.axhline(limit, color=THEMES["light"]["muted"], linewidth=1)
    last.set_title(str(sweep.slo), fontsize=9)


def _line(axes: Axes, curve: PlanCurve, name: str, colour: str, *, dashed: bool = False) -> None:
    """One measure of a plan, with its band; loads without a value are left out."""
    at = curve.column("concurrency" if curve.is_closed else "rate_per_s")
    kept = [i for i, value in enumerate(curve.column(name)) if value is not None]
    if not kept:
        return
    x = np.array([at[i] for i in kept], dtype=float)
    y = np.array([curve.rows[i][name] for i in kept], dtype=float)
    half = np.array([curve.rows[i].get(f"{name}_ci") or 0.0 for i in kept], dtype=float)
    axes.plot(x, y, color=colour, linestyle="--" if dashed else "-", linewidth=1.5)
    if half.any() and not dashed:
        axes.fill_between(x, np.maximum(y - half, y.min() * 0.5), y + half, color=colour, alpha=0.15, linewidth=0)
    for regime, marker in MARKERS.items():
        here = [j for j, i in enumerate(kept) if curve.rows[i]["regime"] == regime]
        axes.plot(x[here], y[here], color=colour, marker=marker, linestyle="", markersize=5)


def _label(curve: PlanCurve) -> str:
    if curve.is_closed:
        return curve.plan
    knee = "knee beyond" if curve.knee_per_s is None else f"knee {curve.knee_per_s:.3g}/s"
    held = curve.slo_rate_per_s
    return f"{curve.plan}: {knee}" + (f", SLO up to {held:.3g}/s" if held is not None else "")


def _colours(count: int) -> list[str]:
    return [KIND_COLOURS[i % len(KIND_COLOURS)] for i in range(count)]
