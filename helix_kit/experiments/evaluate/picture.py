"""The paper's picture of an evaluation: decode throughput, prompt latency, decode latency, by method and source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from matplotlib.figure import Figure

from helix_kit.experiments.evaluate.options import MODES, SIMULATED
from helix_kit.experiments.figures.common.metrics import SPEED, latency_name
from helix_kit.experiments.figures.pictures.evaluation import (
    BOX_KEYS,
    LATENCY_TICKS_S,
    PHASES,
    QUANTILES,
    box,
    places,
)
from helix_kit.experiments.figures.pictures.looks import (
    EDGE,
    at_most_text,
    finish_axes,
    hatched_patch,
    headline,
    label_above,
    legend_below,
    log_ticks,
    new_figure,
    range_text,
)
from helix_kit.plots.bars import HATCHES
from helix_kit.plots.theme import KIND_COLOURS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

LOOKS = {
    SIMULATED: (KIND_COLOURS[4], HATCHES[0]),
    "real workers": (KIND_COLOURS[1], HATCHES[1]),
    "emulated workers": (KIND_COLOURS[0], HATCHES[2]),
}
"""Colour and hatch by source, in the order of the bars."""
SMALL_TICKS_S = (0.001, 0.002, 0.005, 0.01, 0.02)
TURNED = 4
"""With this many methods or more, their names are slanted."""


class Drawable(Protocol):
    """What the picture needs of an `Evaluation`, where the names are described."""

    @property
    def table(self) -> pd.DataFrame:
        """Tidy: method, mode, source, metric, value."""
        ...

    @property
    def labels(self) -> Mapping[str, str]:
        """Method -> its name below the bars."""
        ...

    @property
    def facts(self) -> Mapping[str, Any]:
        """Cluster and model."""
        ...

    @property
    def workers(self) -> str | None:
        """The source of what workers served."""
        ...

    @property
    def runs(self) -> Sequence[tuple[str, str]]:
        """(method, mode) of all runs."""
        ...

    def value(self, method: str, mode: str, source: str, metric: str) -> float | None:
        """One value of the table."""
        ...

    def differences(self) -> pd.DataFrame:
        """How far workers are from the simulation."""
        ...


def draw(evaluation: Drawable) -> Figure:
    """A row of three panels for each mode that has runs."""
    modes = [mode for mode in MODES if any(mode == m for _, m in evaluation.runs)]
    figure = new_figure(2.3 * max(1, len(modes)) + 0.9)
    if not modes:
        headline(figure, f"{_title(evaluation)}: nothing was measured")
        return figure
    sources = [s for s in LOOKS if (evaluation.table["source"] == s).any()]
    for mode, (speed, *latencies) in zip(modes, figure.subplots(len(modes), 3, squeeze=False), strict=True):
        methods = [m for m in evaluation.labels if (m, mode) in evaluation.runs]
        _bars(speed, evaluation, mode, methods, sources)
        speed.set(ylabel=f"{mode}: decode tokens/s")
        for axes, phase in zip(latencies, PHASES, strict=True):
            _boxes(axes, evaluation, mode, methods, sources, phase)
            axes.set(ylabel=f"{mode}: {PHASES[phase]}")
    headline(figure, _headline(evaluation))
    legend_below(figure, len(sources), handles=[hatched_patch(*LOOKS[s], s) for s in sources])
    return figure


def _bars(axes: Axes, evaluation: Drawable, mode: str, methods: list[str], sources: list[str]) -> None:
    pitch = 0.8 / len(sources)
    for place, method in enumerate(methods):
        values = [(s, v) for s in sources if (v := evaluation.value(method, mode, s, SPEED)) is not None]
        for x, (source, height) in zip(places(place, len(values), pitch), values, strict=True):
            colour, hatch = LOOKS[source]
            axes.bar(x, height, pitch - 0.02, color=colour, hatch=hatch, **EDGE)
            label_above(axes, x, height, f"{height:.0f}" if height >= 100 else f"{height:.3g}")
    axes.margins(y=0.12)
    _finish(axes, evaluation, methods)


def _boxes(axes: Axes, evaluation: Drawable, mode: str, methods: list[str], sources: list[str], phase: str) -> None:
    names = [latency_name(phase, q) for q in QUANTILES]
    pitch = 0.8 / len(sources)
    for place, method in enumerate(methods):
        shown = []
        for source in sources:
            values = [evaluation.value(method, mode, source, name) for name in names]
            known = [v for v in values if v is not None]
            if len(known) == len(names):
                shown.append((source, dict(zip(BOX_KEYS, known, strict=True))))
        for x, (source, stats) in zip(places(place, len(shown), pitch), shown, strict=True):
            box(axes, x, stats, *LOOKS[source])
    _finish(axes, evaluation, methods)
    low, high = axes.dataLim.intervaly
    if low > 0 and high > low:
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        log_ticks(axes, "y", [t for t in (*SMALL_TICKS_S, *LATENCY_TICKS_S) if low <= t <= high])


def _finish(axes: Axes, evaluation: Drawable, methods: list[str]) -> None:
    axes.set_xticks(range(len(methods)), [evaluation.labels[m] for m in methods])
    axes.set_xlim(-0.6, len(methods) - 0.4)
    finish_axes(axes)
    if len(methods) >= TURNED:
        for label in axes.get_xticklabels():
            label.set(rotation=30, ha="right", rotation_mode="anchor")


def _title(evaluation: Drawable) -> str:
    return f"{evaluation.facts.get('model')} on {evaluation.facts.get('cluster')}"


def _headline(evaluation: Drawable) -> str:
    """How many times as much Helix serves, and how far workers are from the simulation."""
    source = evaluation.workers or SIMULATED
    gains = []
    for mode in MODES:
        helix = evaluation.value("helix", mode, source, SPEED)
        others = [evaluation.value(m, mode, source, SPEED) for m in ("swarm", "separate", "separate-plus", "petals")]
        gains += [helix / other for other in others if helix and other]
    text = _title(evaluation)
    if gains:
        text += f": Helix serves {range_text(gains)} times as much as the other placements ({source})"
    far = evaluation.differences()
    if len(far):
        share = at_most_text(100 * float(far["difference"].abs().max()))
        text += f"; the workers differ from the simulation by at most {share} % (throughput and median latencies)"
    return text
