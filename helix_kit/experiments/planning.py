"""Max flow by placement method against the proven bound (paper sections 6.6 and 6.9), with open solvers only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from helix_kit.cluster import Cluster
from helix_kit.errors import InfeasibleError
from helix_kit.experiments.registry import Context, experiment
from helix_kit.model import Model

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CASES = (
    ("single24", "llama2-70b"),
    ("geo24", "llama2-70b"),
    ("hetero42", "llama2-70b"),
    ("single24", "llama-30b"),
    ("cluster10", "llama-30b"),
)
METHODS = ("pattern", "paper-milp", "swarm", "petals", "separate")


def _draw(table: pd.DataFrame) -> Figure:
    from matplotlib.figure import Figure

    from helix_kit.plots.bars import WIDTH_IN, grouped_bars

    figure = Figure(figsize=(WIDTH_IN, 3.2), layout="constrained")
    axes = figure.subplots()
    table = table.assign(case=table["cluster"] + "\n" + table["model"])
    bounds = table.groupby("case", sort=False)["bound_tokens_per_s"].min()
    share = table.assign(share=100 * table["flow_tokens_per_s"] / table["case"].map(bounds))
    grouped_bars(axes, share, groups="case", series="method", value="share", order=METHODS, labels="{:.0f}")
    axes.axhline(100, color="0.2", lw=0.8)
    axes.set(ylabel="max flow, % of the proven bound", ylim=(0, 118))
    axes.legend(frameon=False, fontsize=8, ncols=len(METHODS), loc="upper center", bbox_to_anchor=(0.5, 1.12))
    return figure


@experiment(
    "placement-methods",
    title="Max flow by placement method, as a share of the proven bound",
    paper="Sections 6.6 and 6.9",
    draw=_draw,
)
def placement_methods(context: Context) -> pd.DataFrame:
    """One row per cluster, model and method: flow and bound in tokens/s, gap, solver."""
    from helix_kit.placement.planner import plan

    rows = []
    for cluster, model in CASES:
        for method in METHODS:
            context.say(f"{cluster} {model} {method}")
            try:
                made = plan(
                    Cluster.preset(cluster),
                    Model.preset(model),
                    method=method,
                    time_limit=10 if context.fast else 60,
                    seed=context.seed,
                )
            except InfeasibleError:
                continue  # the method has no plan there: no bar
            rows.append(
                {
                    "cluster": cluster,
                    "model": model,
                    "method": method,
                    "flow_tokens_per_s": made.flow_tokens_per_s,
                    "bound_tokens_per_s": made.bound_tokens_per_s,
                    "gap": made.gap,
                    "solver": made.solver or "",
                }
            )
    return pd.DataFrame(rows)
