"""What all pictures share: how a method looks wherever it is drawn, and sizes of text.

A method has one colour, one hatch and one mark in every picture, so that a reader who has learnt one legend can read
the next; hatches and marks tell them apart in grey. Printed a page's text width wide, no text is under 6 points.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from helix_kit.plots.theme import KIND_COLOURS, mix

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SMALLEST_PT, TICKS_PT, LABEL_PT, TITLE_PT, HEADLINE_PT = 6.0, 6.5, 7.5, 8.0, 8.5

LETTERS = 104
"""Of a headline's line."""


@dataclass(frozen=True)
class Look:
    """How a method is drawn."""

    label: str
    colour: str
    hatch: str
    mark: str
    """Of matplotlib's markers."""

    def bar(self) -> dict[str, Any]:
        """Arguments of matplotlib's bars."""
        look = {"color": self.colour, "hatch": self.hatch, "label": self.label}
        return {**look, "edgecolor": "white", "linewidth": 0.4}


METHODS = {
    "helix": Look("Helix", KIND_COLOURS[0], "", "|"),
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
"""Setups and presets of clusters, in words."""


def headline(figure: Figure, text: str) -> None:
    """What is to be seen, above everything, in as many lines as it takes."""
    figure.suptitle(textwrap.fill(text, LETTERS), x=0.008, ha="left", fontsize=HEADLINE_PT, linespacing=1.15)


def small(axes: Axes) -> None:
    """Sizes of a panel's text."""
    axes.tick_params(labelsize=TICKS_PT)
    axes.xaxis.label.set_fontsize(LABEL_PT)
    axes.yaxis.label.set_fontsize(LABEL_PT)
    axes.title.set_fontsize(TITLE_PT)


def span(values: Iterable[float], form: str = "{:.2f}") -> str:
    """``1.10 to 2.24``, or one number when both ends read the same.

    >>> span([2.24, 1.1, 1.7]), span([1.04, 1.01], "{:.1f}")
    ('1.10 to 2.24', '1.0')
    """
    found = list(values)
    low, high = form.format(min(found)), form.format(max(found))
    return low if low == high else f"{low} to {high}"


def over(speeds: Mapping[str, float], method: str, others: Iterable[str]) -> list[float]:
    """A method's value over that of each of `others` that is there."""
    return [speeds[method] / speeds[other] for other in others if method in speeds and other in speeds]
