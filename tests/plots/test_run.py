"""The figure of a run: drawn from what there is, and honest about what there is not."""

from __future__ import annotations

import subprocess
import sys
from io import BytesIO

import pytest

from helix_kit.report import Run
from helix_kit.simulator import simulate
from helix_kit.workload import Workload


def texts(axes):
    return [t.get_text() for t in axes.texts]


def test_a_simulated_run_fills_all_panels(overlapping_plan):
    run = simulate(overlapping_plan, Workload.poisson(rate_per_s=2.0, duration_s=30, input_tokens=50, output_tokens=10))
    figure = run.plot()
    tokens, latency, nodes, kv = figure.axes
    assert not any(texts(axes) for axes in figure.axes)
    area = sum(v * w for v, w in zip(tokens.patches[0].get_data().values, _widths(tokens), strict=True))
    assert area == pytest.approx(len(run.tokens.time_s))
    assert len(latency.lines) == 2
    assert [t.get_text() for t in nodes.get_yticklabels()] == sorted(run.nodes, key=lambda n: run.nodes[n].busy)
    assert len(kv.lines) == 2
    figure.savefig(BytesIO(), format="png")


def _widths(axes):
    edges = axes.patches[0].get_data().edges
    return edges[1:] - edges[:-1]


def test_a_fresh_kernel_shows_the_picture_without_any_backend():
    pytest.importorskip("IPython", reason="needs the notebooks extra")
    # A kernel formats a result by its own methods; pyplot, which would add formatters for figures, is not imported.
    code = """
import sys
from IPython.core.formatters import DisplayFormatter
from helix_kit.report import Run
data, _ = DisplayFormatter().format(Run([]).plot())
assert "matplotlib.pyplot" not in sys.modules
print(sorted(data))
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "['image/png', 'text/plain']"


def test_an_empty_run_says_what_is_missing():
    figure = Run([]).plot()
    assert all(texts(axes) for axes in figure.axes)
