"""Pictures: the flow graph of a plan (its own SVG and PNG), and figures of runs, plans and comparisons.

>>> from helix_kit.plots import flow_graph
>>> picture = flow_graph(plan)                       # doctest: +SKIP
>>> picture.to_svg("plan.svg")                       # doctest: +SKIP
"""

from __future__ import annotations

from helix_kit.plots.compare import plot_comparison
from helix_kit.plots.pareto import plot_pareto
from helix_kit.plots.picture import Picture, flow_graph, png_bundle
from helix_kit.plots.run import plot_run
from helix_kit.plots.runs import plot_runs
from helix_kit.plots.sweep import plot_sweep

__all__ = [
    "Picture",
    "flow_graph",
    "plot_comparison",
    "plot_pareto",
    "plot_run",
    "plot_runs",
    "plot_sweep",
    "png_bundle",
]
