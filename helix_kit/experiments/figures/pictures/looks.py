"""What all pictures share: the look of each method, sizes of text, legends, and bars of machines.

A method has one colour, one hatch and one mark in every picture, so that a reader who knows one legend can read the
next picture. Hatches and marks tell methods apart in grey. Pictures are as wide as the text of a printed page, and no
text is smaller than 6 points.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from helix_kit.plots.bars import WIDTH_IN, tidy
from helix_kit.plots.theme import KIND_COLOURS, mix

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

SMALLEST_PT, TICKS_PT, LABEL_PT, TITLE_PT, HEADLINE_PT = 6.0, 6.5, 7.5, 8.0, 8.5

LINE_LETTERS = 104
"""Letters in a line of a headline."""
EDGE: dict[str, Any] = {"edgecolor": "white", "linewidth": 0.4}
"""Arguments of matplotlib's bars: the edge of every bar."""
BELOW = "outside lower center"
"""Where matplotlib puts the legend of a figure."""


@dataclass(frozen=True)
class Look:
    """How a method is drawn."""

    label: str
    colour: str
    hatch: str
    mark: str
    """One of matplotlib's markers."""

    def bar(self) -> dict[str, Any]:
        """Arguments of matplotlib's bars."""
        return {"color": self.colour, "hatch": self.hatch, "label": self.label, **EDGE}


METHODS = {
    "helix": Look("Helix", KIND_COLOURS[0], "", "|"),
    "helix, our split": Look("Helix's placement", mix(KIND_COLOURS[0], "#ffffff", 0.5), "//", "|"),
    "paper-milp": Look("paper's program", KIND_COLOURS[0], "", "|"),
    "swarm": Look("Swarm", KIND_COLOURS[1], "///", "v"),
    "petals": Look("Petals", KIND_COLOURS[3], "...", "P"),
    "separate": Look("separate", KIND_COLOURS[4], "\\\\\\", "s"),
    "separate_plus": Look("separate+", KIND_COLOURS[5], "--", "^"),
    "random": Look("random", KIND_COLOURS[6], "", "x"),
    "shortest_queue": Look("shortest queue", KIND_COLOURS[7], "", "+"),
    "pattern": Look("our plan", KIND_COLOURS[2], "xxx", "o"),
    "own flow": Look("our plan: max flow", mix(KIND_COLOURS[2], "#ffffff", 0.6), "xxx", "o"),
    "own served": Look("our plan: served", mix(KIND_COLOURS[2], "#000000", 0.8), "ooo", "D"),
}
"""By the names of the tables; `separate` is one pipeline for each kind of machine, `separate_plus` adds mixed ones."""
MODELS = {
    "llama-30b": "LLaMA 30B",
    "llama2-70b": "LLaMA-2 70B",
    "llama3.1-70b": "Llama-3.1-70B",
    "qwen3-32b": "Qwen3-32B",
}
PLACES = {
    "single": "one cluster, 24 machines",
    "geo": "three regions, 24 machines",
    "hetero42": "42 machines of seven kinds",
    "single24": "one cluster, 24 machines",
    "geo24": "three regions, 24 machines",
    "cluster10": "one cluster, 10 machines",
}
"""Readable names of setups and presets of clusters."""


def new_figure(height_in: float) -> Figure:
    """A figure as wide as a page's text, whose panels and legend matplotlib arranges."""
    return Figure(figsize=(WIDTH_IN, height_in), layout="constrained")


def headline(figure: Figure, text: str) -> None:
    """Write what the figure shows above everything, in as many lines as it takes; a number stays beside its %."""
    lines = textwrap.fill(text.replace(" %", "\N{NO-BREAK SPACE}%"), LINE_LETTERS).replace("\N{NO-BREAK SPACE}", " ")
    figure.suptitle(lines, x=0.008, ha="left", fontsize=HEADLINE_PT, linespacing=1.15)


def legend_below(
    figure: Figure, columns: int, *, handles: Sequence[Artist] | None = None, size_pt: float = 7.0
) -> None:
    """One legend below all panels; `handles` None: the labelled marks of all panels."""
    style: dict[str, Any] = {"loc": BELOW, "ncols": columns, "frameon": False, "fontsize": size_pt}
    if handles is None:
        figure.legend(**style)
    else:
        figure.legend(handles=handles, **style)


def legend_of(figure: Figure, axes: Axes, columns: int) -> None:
    """The legend of one panel, below all panels: for panels that have the same legend."""
    handles, _ = axes.get_legend_handles_labels()
    legend_below(figure, columns, handles=handles)


def set_text_sizes(axes: Axes) -> None:
    """Sizes of a panel's text."""
    axes.tick_params(labelsize=TICKS_PT)
    axes.xaxis.label.set_fontsize(LABEL_PT)
    axes.yaxis.label.set_fontsize(LABEL_PT)
    axes.title.set_fontsize(TITLE_PT)


def finish_axes(axes: Axes) -> None:
    """The look of every panel with axes: no box, light lines behind the marks, sizes of text."""
    tidy(axes)
    set_text_sizes(axes)


def grid_both_ways(axes: Axes) -> None:
    """Light vertical lines beside the horizontal ones, for panels of points."""
    axes.grid(axis="x", color="0.88", linewidth=0.6)


def log_ticks(axes: Axes, which: str, values: Iterable[float], form: str = "{:g}") -> None:
    """Ticks of a logarithmic axis (``x`` or ``y``) written out as plain numbers, and no minor ticks."""
    ticks = list(values)
    set_ticks = axes.set_xticks if which == "x" else axes.set_yticks
    set_ticks(ticks, [form.format(tick) for tick in ticks])
    axes.minorticks_off()


def label_above(axes: Axes, x: float, height: float, text: str, *, points: float = 1.5) -> None:
    """A small label `points` above the end of a bar or a mark."""
    axes.annotate(text, (x, height), (0, points), textcoords="offset points", ha="center", fontsize=SMALLEST_PT)


def hatched_patch(colour: str, hatch: str, label: str) -> Patch:
    """An entry of a legend; its hatch is twice as dense, since the patch is small."""
    return Patch(facecolor=colour, hatch=hatch * 2, edgecolor="white", label=label)


def draw_machine(
    axes: Axes,
    layers: tuple[float, float],
    y: float,
    share: float,
    look: tuple[str, str],
    *,
    height: float,
    full: float,
) -> None:
    """A machine as a bar over its layers [start, end), filled from below to the used share of its capacity.

    `look` is colour and hatch; `full` says how much of the colour the filling has.
    """
    colour, hatch = look
    start, width = layers[0], layers[1] - layers[0]
    axes.add_patch(Rectangle((start, y - height / 2), width, height, facecolor=mix(colour, "#ffffff", 0.18)))
    axes.add_patch(
        Rectangle(
            (start, y + height / 2 - height * share), width, height * share, facecolor=mix(colour, "#ffffff", full),
            hatch=hatch, edgecolor="white", linewidth=0,
        )
    )  # fmt: skip


def outline_machine(
    axes: Axes, layers: tuple[float, float], y: float, *, height: float, colour: str, linewidth: float
) -> None:
    """The outline of a machine's bar."""
    box = ((layers[0], y - height / 2), layers[1] - layers[0], height)
    axes.add_patch(Rectangle(*box, fill=False, edgecolor=colour, linewidth=linewidth))


def range_text(values: Iterable[float], form: str = "{:.2f}") -> str:
    """The range of values as text: ``1.10 to 2.24``, or one number if both ends read the same.

    >>> range_text([2.24, 1.1, 1.7]), range_text([1.04, 1.01], "{:.1f}")
    ('1.10 to 2.24', '1.0')
    """
    known = list(values)
    low, high = form.format(min(known)), form.format(max(known))
    return low if low == high else f"{low} to {high}"


def at_most_text(value: float, digits: int = 2) -> str:
    """A number for "at most" and "within": rounded up to that many digits, so that the statement is never false.

    >>> at_most_text(0.6393), at_most_text(3.204), at_most_text(15.01), at_most_text(0.02), at_most_text(0)
    ('0.64', '3.3', '16', '0.02', '0')
    """
    return _rounded(value, digits, math.ceil)


def at_least_text(value: float, digits: int = 3) -> str:
    """A number for "at least": rounded down to that many digits.

    >>> at_least_text(99.033), at_least_text(99.9999), at_least_text(100)
    ('99', '99.9', '100')
    """
    return _rounded(value, digits, math.floor)


def _rounded(value: float, digits: int, to_whole: Callable[[float], int]) -> str:
    if value <= 0:
        return f"{value:g}"
    step = 10.0 ** (math.floor(math.log10(value)) + 1 - digits)
    # A value that is a multiple of the step may come out of the division a little off it.
    whole = round(value / step) if abs(value / step - round(value / step)) < 1e-9 else to_whole(value / step)
    return f"{whole * step:.12g}"


def ratios(speeds: Mapping[str, float], method: str, others: Iterable[str]) -> list[float]:
    """A method's value over that of each of `others`, if both are known.

    >>> ratios({"helix": 6.0, "swarm": 3.0}, "helix", ["swarm", "petals"])
    [2.0]
    """
    return [speeds[method] / speeds[other] for other in others if method in speeds and other in speeds]
