"""Max flow by placement method against the proven bound (paper sections 6.6 and 6.9), with open solvers only."""

from __future__ import annotations

from typing import Any

import pandas as pd

from helix_kit.cluster import Cluster
from helix_kit.experiments.figures.common.limits import AMPLE_S, COUNTED_S, CountedStop
from helix_kit.experiments.figures.common.rows import method_rows
from helix_kit.experiments.figures.pictures.planning import METHODS, draw_methods
from helix_kit.experiments.machinery.registry import Context, experiment
from helix_kit.model import Model

QUESTIONS, FAST_QUESTIONS = 2000, 200
"""How often HiGHS may ask whether to stop, on the paper's program; 2,000 times take 2 s (10 nodes) to 30 s (42)."""

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
    data=("clusters", "models", "profiles", "gpus.csv", "gpu_links.csv"),
    minutes=3.0,
    text="Our pattern program, the paper's program with HiGHS (for up to half a minute, counted in steps of its "
    "search), and heuristics. HiGHS starts from the better of Swarm and Petals; where it finds no better plan, its bar "
    "shows that start. What it finds without a start is in the figure on solver quality. Separate pipelines may pass "
    "the bound: as in the paper, they put up to 1.75 times as many layers on a machine as fit into its memory beside a "
    "useful KV cache, and the bound is that of plans which do not.",
)
def placement_methods(context: Context) -> pd.DataFrame:
    """One row for each cluster, model and method: flow and bound in tokens/s, gap, solver."""
    rows = []
    for cluster, model in CASES:
        keys = {"cluster": cluster, "model": model}
        for row, plan in method_rows(keys, Cluster.preset(cluster), Model.preset(model), _methods(context), context):
            rows.append({**row, "solver": plan.solver or ""})
    return pd.DataFrame(rows)


def _methods(context: Context) -> list[tuple[str, dict[str, Any]]]:
    stop = CountedStop(FAST_QUESTIONS if context.fast else QUESTIONS)
    limits: dict[str, dict[str, Any]] = {
        "paper-milp": {"stop": stop},
        "pattern": {"time_limit_s": COUNTED_S, "deterministic": True},
    }
    return [(name, {"method": name, "time_limit_s": AMPLE_S, **limits.get(name, {})}) for name in METHODS]
