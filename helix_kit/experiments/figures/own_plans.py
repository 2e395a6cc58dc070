"""Our planner on the published settings: the plan of most flow, and the plan that serves most in the simulator."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from helix_kit.experiments.figures.common import published
from helix_kit.experiments.figures.common.settings import SETTINGS, Setting, own_plan, requests_of, serving
from helix_kit.experiments.figures.pictures.own_plans import draw_own_plans
from helix_kit.experiments.machinery.registry import Context, experiment
from helix_kit.experiments.figures.common.rows import SPEED, flow_of
from helix_kit.experiments.figures.common.simulated import simulated
from helix_kit.flow import Placement
from helix_kit.placement.plan import Plan
from helix_kit.planning import plan

SIMULATIONS, FAST_SIMULATIONS = 48, 10
"""Plans that the search for the most served may simulate: a number, not a time, so that results do not change."""
OFFLINE = "offline_decode_tokens_per_s"
TIME_LIMIT_S, FAST_TIME_LIMIT_S = 3600.0, 40.0
"""Of a search; the full one never comes near, the fast one ends by the clock, so its plans depend on the machine."""


@experiment(
    "own-plans",
    title="Our plans for the published settings: most flow, and most served",
    paper="Beyond the paper",
    draw=draw_own_plans,
    minutes=10.0,
    text="The published Helix plan, ours for the most flow, and ours for what is served. Left: max flow as a share of "
    "the proven bound. Right: what each serves offline by the published rules, in our simulator, over what Helix's "
    "plan serves. The plan that serves most is not the one of most flow: long chains of machines carry flow, and make "
    "every step of decoding longer.",
)
def own_plans(context: Context) -> pd.DataFrame:
    """One row a node of each plan: setup, model, objective, node, start, end, the plan's flow and bound, what it served
    in the search, which kinds its flow spares, and what it serves offline by the published rules."""
    rows = []
    for setting in SETTINGS.values():
        problem = setting.problem()
        parts = published.find(setting.setup, setting.model, "helix", "offline").plans()
        known = {node: span for part in parts for node, span in part.placement.items()}
        values: dict[str, Any] = {"flow_tokens_per_s": sum(p.flow_tokens_per_s for p in parts)}
        values[OFFLINE] = offline(setting, None, context)
        rows += _rows(setting, "published", known, values)
        for objective in ("flow", "served"):
            context.say(f"{setting.setup} {setting.model}, {objective}")
            options = _search(context) if objective == "served" else {}
            made = plan(
                problem.cluster,
                problem.model,
                objective=objective,
                time_limit_s=FAST_TIME_LIMIT_S if context.fast else TIME_LIMIT_S,
                seed=context.seed,
                **options,
            )
            context.measured[f"seconds {setting.setup} {setting.model} {objective}"] = round(made.seconds, 1)
            values = {key: value for key, value in flow_of(made).items() if key != "gap"}
            if made.served:
                values["decode_tokens_per_s"] = made.served["decode_tokens_per_s"]
                values["ease"] = json.dumps(made.served["ease"])
            remade = own_plan(setting, objective, made.placement, made.served["ease"] if made.served else {})
            values[OFFLINE] = offline(setting, remade, context)
            rows += _rows(setting, objective, made.placement, values)
    return pd.DataFrame(rows)


def offline(setting: Setting, made: Plan | None, context: Context) -> float:
    """Decode tokens/s in the offline setting of the paper: of our plan, or of the published Helix plan (None).

    The same simulations as those of the evaluation's figures, which find them done.
    """
    run = published.find(setting.setup, setting.model, "helix", "offline")
    if made is None:
        return simulated(run.calls(seed=context.seed), context).metrics[SPEED]
    call = serving(made, "offline", requests_of(run.parts[:1]), seed=context.seed)
    return simulated([call], context).metrics[SPEED]


def _search(context: Context) -> dict[str, Any]:
    return {"max_simulations": FAST_SIMULATIONS if context.fast else SIMULATIONS, "jobs": 2}


def _rows(setting: Setting, objective: str, placement: Placement, values: dict[str, Any]) -> list[dict[str, Any]]:
    fixed = {"setup": setting.setup, "model": setting.model, "objective": objective}
    return [{**fixed, "node": n, "start": s, "end": e, **values} for n, (s, e) in placement.items()]
