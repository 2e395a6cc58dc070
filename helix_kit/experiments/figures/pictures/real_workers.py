"""Published results, our simulation and worker processes side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from helix_kit.experiments.figures.common.metrics import SPEED, latency_name
from helix_kit.experiments.figures.common.rows import BASELINES, PROTOTYPE, SIMULATION
from helix_kit.experiments.figures.pictures.evaluation import MODES, PHASES, bars, boxes, finish, methods_of
from helix_kit.experiments.figures.pictures.looks import (
    METHODS,
    MODELS,
    at_most_text,
    headline,
    new_figure,
    range_text,
    ratios,
)

if TYPE_CHECKING:
    import pandas as pd

WORKERS = "our workers"
"""The source of what worker processes served."""
MEDIANS = tuple(latency_name(phase, "p50") for phase in PHASES)


def draw_real_workers(table: pd.DataFrame) -> Figure:
    """A row of three panels for each model and mode: throughput, prompt latency, decode latency."""
    cases = [(model, mode) for model in dict.fromkeys(table["model"]) for mode in MODES]
    parts = [(model, mode, table[(table["model"] == model) & (table["mode"] == mode)]) for model, mode in cases]
    parts = [part for part in parts if len(part[2])]
    figure = new_figure(2.3 * len(parts) + 0.9)
    grid = figure.subplots(len(parts), 3, squeeze=False, width_ratios=(1.7, 1, 1))
    for (speed, *latencies), (model, mode, part) in zip(grid, parts, strict=True):
        bars(speed, part)
        methods = methods_of(part)
        far = [f"{METHODS[m].label}\n{100 * difference(part, m, SPEED):+.1f} %" for m in methods]
        speed.set_xticks(range(len(methods)), far)
        title = f"{MODELS[model]}, {mode}\nbelow each method: workers beside our simulation"
        speed.set(title=title, ylabel="decode tokens/s")
        for axes, phase in zip(latencies, PHASES, strict=True):
            boxes(axes, part, phase)
            axes.set(ylabel=PHASES[phase])
    headline(figure, _headline(table, parts))
    finish(figure, grid.flat, table)
    return figure


def difference(part: pd.DataFrame, method: str, metric: str) -> float:
    """How far the workers of a method are from our simulation, as a share of it."""
    mine = part[(part["method"] == method) & (part["metric"] == f"{metric}_difference")]
    return float(mine["value"].iloc[0])


def _gains(part: pd.DataFrame, source: str) -> list[float]:
    mine = part[(part["metric"] == SPEED) & (part["source"] == source)]
    return ratios(dict(zip(mine["method"], mine["value"], strict=True)), "helix", BASELINES)


def _headline(table: pd.DataFrame, parts: list[tuple[str, str, pd.DataFrame]]) -> str:
    served = [gain for *_, part in parts for gain in _gains(part, WORKERS)]
    published = [gain for *_, part in parts for source in (SIMULATION, PROTOTYPE) for gain in _gains(part, source)]
    workers = int(table[table["metric"] == "workers"]["value"].max())
    text = f"{workers} worker processes"
    if served:
        text += f": Helix serves {range_text(served)} times as much as the others (published: {range_text(published)})"
    late = at_most_text(100 * float(table[table["metric"] == "late_steps_share"]["value"].max()))
    far = {
        metric: max(abs(difference(part, m, metric)) for *_, part in parts for m in dict.fromkeys(part["method"]))
        for metric in (SPEED, *MEDIANS)
    }
    speed, latency = (at_most_text(100 * share) for share in (far[SPEED], max(far[m] for m in MEDIANS)))
    text += f"; from our simulation throughput differs by at most {speed} %, a median latency by at most {latency} %"
    return f"{text}; at most {late} % of steps were late"
