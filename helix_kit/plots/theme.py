"""Colours of every picture: the Okabe-Ito palette, whose colours differ under the common colour blindnesses.

Pictures name colours by role ("ink", "kind2-full"), and a theme gives each role its value. So SVG, PNG and widget
agree, and the light and the dark theme differ only in this file.
"""

from __future__ import annotations

KIND_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#B8A800", "#7F7F7F", "#8C564B")
"""One for each kind of machine: Okabe-Ito, with a darker yellow so that a thin line shows on white."""
CUT_COLOUR = "#D55E00"
"""Okabe-Ito vermilion marks what limits the flow, and nothing else."""


def mix(colour: str, other: str, share: float) -> str:
    """`share` of `colour` mixed with the rest of `other`, both ``#rrggbb``.

    >>> mix("#ff0000", "#0000ff", 0.5)
    '#800080'
    """
    pairs = zip(_rgb(colour), _rgb(other), strict=True)
    return "#" + "".join(f"{round(a * share + b * (1 - share)):02x}" for a, b in pairs)


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _theme(paper: str, ink: str, full: float, empty: float) -> dict[str, str]:
    theme = {
        "paper": paper,
        "ink": ink,
        "muted": mix(ink, paper, 0.62),
        "grid": mix(ink, paper, 0.10),
        "band": mix(ink, paper, 0.045),
        "ribbon": mix("#5B6B7F", paper, 0.62),
        "far": mix("#7B3FA0", paper, 0.72),
        "cut": mix(CUT_COLOUR, ink, 0.92),
        "cut-soft": mix(CUT_COLOUR, paper, 0.45),
        "hub": mix(ink, paper, 0.72),
        "strip": mix(ink, paper, 0.16),
    }
    for index, colour in enumerate(KIND_COLOURS):
        theme[f"kind{index}"] = colour
        theme[f"kind{index}-full"] = mix(colour, paper, full)
        theme[f"kind{index}-empty"] = mix(colour, paper, empty)
    return theme


THEMES: dict[str, dict[str, str]] = {
    "light": _theme("#ffffff", "#1b1f24", 0.55, 0.12),
    "dark": _theme("#14171b", "#e8eaed", 0.62, 0.20),
}
"""Theme name -> colour of each role."""


def kind_role(index: int) -> str:
    """Role of the `index`-th kind of machine; after the last colour the first one follows again."""
    return f"kind{index % len(KIND_COLOURS)}"
