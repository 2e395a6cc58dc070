"""Our planner on the published settings: the plan with the largest flow, and the one that serves most."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pandas as pd

from helix_kit.experiments.figures.common.metrics import SPEED
from helix_kit.experiments.figures.common.published import published_run
from helix_kit.experiments.figures.common.rows import flow_fields
from helix_kit.experiments.figures.common.settings import (
    OBJECTIVES,
    SETTINGS,
    Setting,
    helix_simulation,
    joined_requests,
    own_plan,
)
from helix_kit.experiments.figures.common.simulated import CACHE, locked, simulated
from helix_kit.experiments.figures.pictures.own_plans import draw_own_plans
from helix_kit.experiments.machinery import digests
from helix_kit.experiments.machinery.registry import Context, experiment
from helix_kit.flow import Placement
from helix_kit.placement.plan import Plan
from helix_kit.planning import plan as make_plan

MAX_SIMULATIONS, FAST_MAX_SIMULATIONS = 48, 10
"""Plans that the search for the best served plan may simulate: a number, not a time, so that results stay the same."""
DATA = ("clusters", "models", "profiles", "gpus.csv", "published")
OFFLINE = "offline_decode_tokens_per_s"
TIME_LIMIT_S, FAST_TIME_LIMIT_S = 3600.0, 40.0
"""Of a search. The full search never comes near its limit. The fast one is ended by the clock, so its plans depend on
the machine."""


def own_plan_part(context: Context, setting: Setting, objective: str) -> pd.DataFrame:
    """The rows of one plan of ours. A fast run keeps them, so that its figures search for each plan once."""
    if not context.fast:
        return pd.DataFrame(_searched(context, setting, objective))
    depends = (digests.code_digest(__name__), digests.data_digest(DATA), setting, objective, context.seed)
    digest = hashlib.sha256(repr(depends).encode()).hexdigest()[:24]
    path = context.folder / CACHE / f"own-plan-{digest}.csv"
    with locked(path):
        if not path.is_file():
            part = path.with_suffix(".part")
            pd.DataFrame(_searched(context, setting, objective)).to_csv(part, index=False)
            part.replace(path)
        return pd.read_csv(path, keep_default_na=False, na_values=[""])


def _searched(context: Context, setting: Setting, objective: str) -> list[dict[str, Any]]:
    context.say(f"{setting.setup} {setting.model}, {objective}")
    problem = setting.problem()
    plan = make_plan(
        problem.cluster,
        problem.model,
        objective=objective,
        time_limit_s=FAST_TIME_LIMIT_S if context.fast else TIME_LIMIT_S,
        seed=context.seed,
        **(_search_options(context) if objective == "served" else {}),
    )
    context.measured[f"seconds {setting.setup} {setting.model} {objective}"] = round(plan.seconds, 1)
    values: dict[str, Any] = {key: value for key, value in flow_fields(plan).items() if key != "gap"}
    if plan.served:
        values["decode_tokens_per_s"] = plan.served.decode_tokens_per_s
        values["ease"] = json.dumps(plan.served.ease)
    as_simulated = own_plan(setting, objective, plan.placement, plan.served.ease if plan.served else {})
    values[OFFLINE] = offline(setting, as_simulated, context)
    return _rows(setting, objective, plan.placement, values)


@experiment(
    "own-plans",
    title="Our plans for the published settings: most flow, and most served",
    paper="Beyond the paper",
    draw=draw_own_plans,
    part=own_plan_part,
    minutes=10.0,
    text="The published Helix plan, our plan with the largest flow, and our plan that serves most. Left: max flow as "
    "a share of the proven bound. Right: offline throughput by the published rules in our simulator, over that of "
    "Helix's plan. The plan that serves most does not have the largest flow: long chains of machines carry more flow, "
    "but every decode step takes longer in them.",
)
def own_plans(context: Context) -> pd.DataFrame:
    """One row for each node of each plan.

    Columns: setup, model, objective, node, start and end; the plan's flow and bound, what it served in the search,
    which kinds of machine its flow spares, and what it serves offline by the published rules.
    """
    tables = []
    for setting in SETTINGS.values():
        published = published_run(setting.setup, setting.model, "helix", "offline").plans()
        placement = {node: span for plan in published for node, span in plan.placement.items()}
        values: dict[str, Any] = {"flow_tokens_per_s": sum(plan.flow_tokens_per_s for plan in published)}
        values[OFFLINE] = offline(setting, None, context)
        tables.append(pd.DataFrame(_rows(setting, "published", placement, values)))
        tables += [own_plan_part(context, setting, objective) for objective in OBJECTIVES]
    return pd.concat(tables, ignore_index=True)


def offline(setting: Setting, plan: Plan | None, context: Context) -> float:
    """Decode tokens/s in the offline setting of the paper, of our plan or (None) of the published Helix plan.

    The figures of the evaluation run the same simulations, and read the outcomes that are kept here.
    """
    run = published_run(setting.setup, setting.model, "helix", "offline")
    if plan is None:
        return simulated(run.simulations(seed=context.seed), context).metrics[SPEED]
    requests = joined_requests(run.subclusters[:1])
    return simulated([helix_simulation(plan, "offline", requests, seed=context.seed)], context).metrics[SPEED]


def _search_options(context: Context) -> dict[str, Any]:
    return {"max_simulations": FAST_MAX_SIMULATIONS if context.fast else MAX_SIMULATIONS, "jobs": 2}


def _rows(setting: Setting, objective: str, placement: Placement, values: dict[str, Any]) -> list[dict[str, Any]]:
    fixed = {"setup": setting.setup, "model": setting.model, "objective": objective}
    return [{**fixed, "node": n, "start": s, "end": e, **values} for n, (s, e) in placement.items()]
