"""Max flow by placement method against the proven bound (paper sections 6.6 and 6.9), with open solvers only."""

from __future__ import annotations

import pandas as pd

from helix_kit.cluster import Cluster
from helix_kit.errors import InfeasibleError
from helix_kit.experiments.pictures.planning import METHODS, draw_methods
from helix_kit.experiments.registry import Context, experiment
from helix_kit.model import Model

CASES = (
    ("single24", "llama2-70b"),
    ("geo24", "llama2-70b"),
    ("hetero42", "llama2-70b"),
    ("single24", "llama-30b"),
    ("cluster10", "llama-30b"),
)


@experiment(
    "placement-methods",
    title="Max flow by placement method, as a share of the proven bound",
    paper="Sections 6.6 and 6.9",
    draw=draw_methods,
    data=("clusters", "models", "profiles", "gpus.csv"),
    minutes=3.0,
    text="The pattern program (ours), the paper's program with HiGHS for half a minute, and heuristics. Where HiGHS "
    "finds nothing, the bar is the heuristic it started from.",
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
                    time_limit=5 if context.fast else 30,
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
