"""Pictures of the evaluation: bars of decode throughput, boxes of latencies, by method and source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from helix_kit.experiments.figures.common.metrics import QUANTILES
from helix_kit.experiments.figures.common.rows import BASELINES
from helix_kit.experiments.figures.pictures.looks import (
    EDGE,
    LABEL_PT,
    METHODS,
    MODELS,
    PLACES,
    hatched_patch,
    headline,
    label_above,
    legend_below,
    log_ticks,
    new_figure,
    range_text,
    ratios,
    set_text_sizes,
)
from helix_kit.plots.bars import HATCHES, tidy
from helix_kit.plots.theme import KIND_COLOURS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

OWN = "our plans"
LOOKS = {
    "published simulation": (KIND_COLOURS[4], HATCHES[0]),
    "published prototype": (KIND_COLOURS[1], HATCHES[1]),
    "ours": (KIND_COLOURS[0], HATCHES[2]),
    "our workers": (KIND_COLOURS[3], HATCHES[3]),
    OWN: (KIND_COLOURS[2], HATCHES[4]),
    "ours, own plan": (KIND_COLOURS[2], HATCHES[4]),
    "same rate": (KIND_COLOURS[4], HATCHES[0]),
    "rate by own max flow": (KIND_COLOURS[0], HATCHES[1]),
}
"""Colour and hatch by source, in the order of the bars. All but `OWN` are sources of rows."""
LABELS = {
    "ours": "our simulator, published plans",
    "our workers": "our workers (real processes)",
    OWN: "our simulator, our plans",
    "ours, own plan": "our simulator, our plan",
    "same rate": "same rate for all",
    "rate by own max flow": "in proportion to max flow",
}
TICKS = {"own flow": "ours:\nmax flow", "own served": "ours:\nserved", "shortest_queue": "shortest\nqueue"}
"""Names below the bars that need two lines."""
MODES = ("offline", "online")
PHASES = {"prompt": "prompt latency, s", "decode": "decode latency, s"}
BOX_KEYS = ("whislo", "q1", "med", "q3", "whishi")
LATENCY_TICKS_S = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200)


def draw_evaluation(table: pd.DataFrame) -> Figure:
    """For each model: throughput offline and online, prompt and decode latency online."""
    models = list(dict.fromkeys(table["model"]))
    figure = new_figure(3.7 * len(models) + 0.6)
    grid = figure.subplots(2 * len(models), 2, squeeze=False)
    gains, own = [], []
    for row, model in enumerate(models):
        mine = table[table["model"] == model]
        for axes, mode in zip(grid[2 * row], MODES, strict=True):
            part = mine[mine["mode"] == mode]
            bars(axes, part)
            speeds = speeds_of(part)
            helix, served = ratios(speeds, "helix", BASELINES), ratios(speeds, "own served", ("helix",))
            gains += helix
            own += served
            note = f"Helix {range_text(helix).replace(' to ', '–')} × baselines"
            note += "".join(f", our plan {ratio:.2f} × Helix" for ratio in served)
            axes.set(title=f"{MODELS[model]}, {mode}\n{note}", ylabel="decode tokens/s")
        for axes, phase in zip(grid[2 * row + 1], PHASES, strict=True):
            boxes(axes, mine[mine["mode"] == "online"], phase)
            axes.set(title=f"{MODELS[model]}, online", ylabel=PHASES[phase])
    place = PLACES[table["setup"].iloc[0]].capitalize()
    text = f"{place}: Helix serves {range_text(gains)} times as much as the baselines"
    text += f", our plans {range_text(own)} times as much as Helix's plans" if own else ""
    headline(figure, text)
    measured = (table["source"] == "published prototype").any()
    none = Patch(facecolor="none", edgecolor="0.6", label="published prototype: no values given")
    finish(figure, grid.flat, table, more=[] if measured else [none])
    return figure


def draw_deep_dive(table: pd.DataFrame) -> Figure:
    """Throughput and prompt latency in three regions (beside the published simulation) and in one (the prototype)."""
    places = list(dict.fromkeys(table["setup"]))
    figure = new_figure(2.2 * len(places) + 0.6)
    grid = figure.subplots(len(places), 2, squeeze=False)
    gains = []
    for row, place in zip(grid, places, strict=True):
        mine = table[table["setup"] == place]
        bars(row[0], mine)
        row[0].set(title=place, ylabel="decode tokens/s")
        boxes(row[1], mine, "prompt")
        row[1].set(title=place, ylabel=PHASES["prompt"])
        speeds = speeds_of(mine)
        gains.append(ratios(speeds, "helix", [m for m in speeds if m != "helix" and not m.startswith("own")]))
    what = "scheduler" if (table["method"] == "random").any() else "placement"
    each = ", ".join(f"{range_text(g)} in {place}" for g, place in zip(gains, places, strict=True))
    headline(figure, f"Throughput with Helix's {what}, times that with the others: {each}")
    finish(figure, grid.flat, table)
    return figure


def speeds_of(part: pd.DataFrame) -> dict[str, float]:
    """Method -> decode tokens/s in our simulator, on the published plans and our own."""
    mine = part[(part["metric"] == "decode_tokens_per_s") & (part["source"] == "ours")]
    return {str(m): float(v) for m, v in zip(mine["method"], mine["value"], strict=True)}


def finish(figure: Figure, all_axes: Any, table: pd.DataFrame, more: Sequence[Artist] = ()) -> None:
    """Set sizes of text, and draw one legend below with the sources that are shown and `more`."""
    for axes in all_axes:
        set_text_sizes(axes)
        axes.title.set_fontsize(LABEL_PT)
    looks = {_look(m, s) for m, s in zip(table["method"], table["source"], strict=True)}
    patches = [
        hatched_patch(colour, hatch, LABELS.get(look, look)) for look, (colour, hatch) in LOOKS.items() if look in looks
    ]
    handles = [*patches, *more]
    letters = sum(len(str(h.get_label())) for h in handles)
    columns = len(handles) if letters < 95 else (len(handles) + 1) // 2
    legend_below(figure, columns, handles=handles)


def _look(method: str, source: str) -> str:
    return OWN if method.startswith("own") and source == "ours" else source


def _sources(part: pd.DataFrame, method: str) -> list[str]:
    return [s for s in LOOKS if ((part["method"] == method) & (part["source"] == s)).any()]


def methods_of(part: pd.DataFrame) -> list[str]:
    """Methods in the order of the legend."""
    return [m for m in METHODS if (part["method"] == m).any()]


def bars(axes: Axes, part: pd.DataFrame, *, labels: bool = True) -> None:
    """Decode throughput: one group for each method, one bar for each source; `labels` writes the value over it."""
    values = part[part["metric"] == "decode_tokens_per_s"].set_index(["method", "source"])["value"]
    methods = methods_of(part)
    pitch = pitch_of(part)
    for place, method in enumerate(methods):
        sources = [s for s in _sources(part, method) if (method, s) in values.index]
        for x, source in zip(places(place, len(sources), pitch), sources, strict=True):
            height = float(values[method, source])
            colour, hatch = LOOKS[_look(method, source)]
            axes.bar(x, height, pitch - 0.02, color=colour, hatch=hatch, **EDGE)
            if labels:
                label_above(axes, x, height, f"{height:.0f}")
    _methods_axis(axes, methods)
    axes.margins(y=0.12)


def boxes(axes: Axes, part: pd.DataFrame, phase: str) -> None:
    """Latency on a log scale: one group for each method, one box (quartiles; whiskers 5 and 95 %) for each source."""
    values = part.set_index(["method", "source", "metric"])["value"]
    methods = methods_of(part)
    pitch = pitch_of(part)
    for place, method in enumerate(methods):
        names = [f"{phase}_latency_{q}_s" for q in QUANTILES]
        sources = [s for s in _sources(part, method) if all((method, s, name) in values.index for name in names)]
        for x, source in zip(places(place, len(sources), pitch), sources, strict=True):
            keys = [(method, source, name) for name in names]
            colour, hatch = LOOKS[_look(method, source)]
            stats = dict(zip(BOX_KEYS, (float(values[k]) for k in keys), strict=True))
            box(axes, x, stats, colour, hatch)
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    log_ticks(axes, "y", [t for t in LATENCY_TICKS_S if low <= t <= high])
    _methods_axis(axes, methods)


def box(axes: Axes, x: float, stats: dict[str, float], colour: str, hatch: str) -> None:
    """One box; `stats` by `BOX_KEYS`."""
    drawn = axes.bxp(
        [{**stats, "fliers": []}],
        positions=[x],
        widths=[0.25],
        patch_artist=True,
        showfliers=False,
        manage_ticks=False,
        medianprops={"color": "black", "linewidth": 1.0},
        whiskerprops={"color": "0.25", "linewidth": 0.8},
        capprops={"color": "0.25", "linewidth": 0.8},
    )
    drawn["boxes"][0].set(facecolor=colour, hatch=hatch, **EDGE)


def pitch_of(part: pd.DataFrame) -> float:
    """Distance from bar to bar within a group, such that the largest group fills its place."""
    largest = max((len(_sources(part, m)) for m in methods_of(part)), default=1)
    return min(0.4, 0.9 / max(largest, 1))


def places(centre: float, count: int, pitch: float = 0.3) -> Sequence[float]:
    """x of the bars of one group."""
    return [centre + (i - (count - 1) / 2) * pitch for i in range(count)]


def _methods_axis(axes: Axes, methods: Sequence[str]) -> None:
    axes.set_xticks(range(len(methods)), [TICKS.get(m, METHODS[m].label) for m in methods])
    axes.set_xlim(-0.55, len(methods) - 0.45)
    tidy(axes)
