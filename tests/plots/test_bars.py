"""Grouped bars have the heights of the table, in the given order, and leave missing places empty."""

from __future__ import annotations

import pandas as pd
import pytest

pytest.importorskip("matplotlib")

from matplotlib.figure import Figure

from helix_kit.plots.bars import grouped_bars

TABLE = pd.DataFrame(
    {
        "case": ["one", "one", "two"],
        "method": ["a", "b", "b"],
        "speed": [3.0, 5.0, 7.0],
    }
)


def test_heights_labels_and_the_empty_place():
    axes = Figure().subplots()
    grouped_bars(axes, TABLE, groups="case", series="method", value="speed", order=["b", "a"], labels="{:.0f}")
    drawn = {round(bar.get_x() + bar.get_width() / 2, 6): bar.get_height() for bar in axes.patches}
    assert drawn == {-0.21: 5.0, 0.79: 7.0, 0.21: 3.0}
    assert sorted(text.get_text() for text in axes.texts) == ["3", "5", "7"]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["one", "two"]


def test_styles_take_the_place_of_the_palette():
    axes = Figure().subplots()
    grouped_bars(
        axes, TABLE, groups="case", series="method", value="speed", styles={"a": {"color": "#123456", "label": "A"}}
    )
    assert axes.get_legend_handles_labels()[1] == ["A", "b"]
    assert axes.containers[0].patches[0].get_facecolor()[:3] == pytest.approx((0x12 / 255, 0x34 / 255, 0x56 / 255))
