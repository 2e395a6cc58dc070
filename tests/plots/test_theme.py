"""Both themes give every role a colour, and texts stand out from the paper."""

from __future__ import annotations

import re

import pytest

from helix_kit.plots.theme import KIND_COLOURS, THEMES, kind_role, mix


def luminance(colour: str) -> float:
    """Relative luminance of the Web Content Accessibility Guidelines."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    dark, light = sorted((luminance(a), luminance(b)))
    return (light + 0.05) / (dark + 0.05)


def test_themes_have_the_same_roles_and_valid_colours():
    light, dark = THEMES.values()
    assert light.keys() == dark.keys()
    assert all(re.fullmatch("#[0-9a-f]{6}", c, re.I) for theme in THEMES.values() for c in theme.values())


@pytest.mark.parametrize("theme", THEMES)
def test_texts_are_legible_on_the_paper(theme):
    colours = THEMES[theme]
    assert contrast(colours["ink"], colours["paper"]) >= 7
    assert contrast(colours["muted"], colours["paper"]) >= 4.5


def test_colours_of_kinds_repeat_after_the_last():
    assert kind_role(len(KIND_COLOURS)) == kind_role(0) != kind_role(1)
    assert mix("#102030", "#ffffff", 1.0) == "#102030" and mix("#102030", "#ffffff", 0.0) == "#ffffff"
