"""Our planner on the published settings: the plan of most flow, and the plan that serves most in the simulator."""

from __future__ import annotations

from typing import Any

import pandas as pd

from helix_kit.experiments import published
from helix_kit.experiments.own import SETTINGS, Setting
from helix_kit.experiments.pictures.own_plans import draw_own_plans
from helix_kit.experiments.registry import Context, experiment
from helix_kit.flow import Placement
from helix_kit.placement.planner import plan

SIMULATIONS, FAST_SIMULATIONS = 60, 10
"""Plans that the search for the most served may simulate: a number, not a time, so that results do not change."""
TIME_LIMIT_S = 600.0


@experiment(
    "own-plans",
    title="Our plans for the published settings: most flow, and most served",
    paper="Beyond the paper",
    draw=draw_own_plans,
    minutes=6.0,
    text="Max flow of the published plan, of ours for the most flow, and of ours for what is served, as a share of the "
    "proven bound. The plan that serves most is not the one of most flow: what it serves stands in the figures of "
    "sections 6.3 to 6.5.",
)
def own_plans(context: Context) -> pd.DataFrame:
    """One row a node of each plan: setup, model, objective, node, start, end, and the plan's flow and bound."""
    rows = []
    for setting in SETTINGS.values():
        problem = setting.problem()
        bound = float("inf")
        parts = published.find(setting.setup, setting.model, "helix", "offline").plans()
        known = {node: span for part in parts for node, span in part.placement.items()}
        rows += _rows(setting, "published", known, sum(p.flow_tokens_per_s for p in parts), bound)
        for objective in ("flow", "served"):
            context.say(f"{setting.setup} {setting.model}, {objective}")
            options: dict[str, Any] = (
                {} if objective == "flow" else {"max_simulations": _simulations(context), "jobs": 2}
            )
            made = plan(
                problem.cluster,
                problem.model,
                objective=objective,
                time_limit=TIME_LIMIT_S,
                seed=context.seed,
                **options,
            )
            context.measured[f"seconds {setting.setup} {setting.model} {objective}"] = round(made.seconds, 1)
            bound = min(bound, made.bound_tokens_per_s)
            rows += _rows(setting, objective, made.placement, made.flow_tokens_per_s, bound)
    return pd.DataFrame(rows)


def _simulations(context: Context) -> int:
    return FAST_SIMULATIONS if context.fast else SIMULATIONS


def _rows(setting: Setting, objective: str, placement: Placement, flow: float, bound: float) -> list[dict[str, Any]]:
    fixed = {"setup": setting.setup, "model": setting.model, "objective": objective}
    value = {"flow_tokens_per_s": flow, "bound_tokens_per_s": bound if bound < float("inf") else None}
    return [{**fixed, "node": n, "start": s, "end": e, **value} for n, (s, e) in placement.items()]
