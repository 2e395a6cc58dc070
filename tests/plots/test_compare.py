"""The picture of a comparison has one bar for each run and leaves out plans that have none."""

from __future__ import annotations

import pandas as pd
import pytest

pytest.importorskip("matplotlib")

from helix_kit.plots import plot_comparison


def test_one_bar_for_each_run():
    rows = [
        {
            "plan": plan,
            "workload": "steady",
            "policy": policy,
            "decode_tokens_per_s": speed,
            "prompt_s": 1.0,
            "decode_s": 2.0,
        }
        for plan, policy, speed in (
            ("a", "helix", 10.0),
            ("b", "helix", 20.0),
            ("a", "random", 5.0),
            ("c", "helix", None),
        )
    ]
    figure = plot_comparison(pd.DataFrame(rows))
    speed, *latencies = figure.axes
    assert sorted(bar.get_height() for bar in speed.patches) == [5.0, 10.0, 20.0]
    assert [tick.get_text() for tick in speed.get_xticklabels()] == ["steady\nhelix", "steady\nrandom"]
    assert all(len(axes.patches) == 3 for axes in latencies)
