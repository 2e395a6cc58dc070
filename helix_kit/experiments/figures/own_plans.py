"""Our planner on the published settings: the plan with the largest flow, and the one that serves most."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from helix_kit import _files
from helix_kit.experiments.figures.common.comparison import Means, means_of, paper_tokens_per_s, variants
from helix_kit.experiments.figures.common.limits import COUNTED_S
from helix_kit.experiments.figures.common.published import STREAM_SEEDS, offline_requests
from helix_kit.experiments.figures.common.rows import flow_fields
from helix_kit.experiments.figures.common.settings import (
    DATA,
    OBJECTIVES,
    SETTINGS,
    Setting,
    helix_simulation,
    own_plan,
    plans_in,
    stored_served_plan,
)
from helix_kit.experiments.figures.common.simulated import CACHE, locked, simulated
from helix_kit.experiments.figures.common.simulation import Simulation
from helix_kit.experiments.figures.pictures.own_plans import draw_own_plans
from helix_kit.experiments.machinery import digests
from helix_kit.experiments.machinery.registry import Context, experiment
from helix_kit.flow import Placement
from helix_kit.planning import plan as make_plan

FAST_MAX_SIMULATIONS = 10
"""Plans that the search for the best served plan may simulate in a fast run."""
OFFLINE = "offline_decode_tokens_per_s"
FAST_TIME_LIMIT_S = 40.0
"""Of a search in a fast run, in seconds. The clock ends it, so its plan depends on the machine. A full run counts the
work of its searches instead."""


def own_plan_part(context: Context, setting: Setting, objective: str) -> pd.DataFrame:
    """The rows of one plan of ours.

    A full run takes the plan that serves most from ``data/served_plans``, where a search of minutes to a quarter hour
    has put it (``python benchmarks/bench_served.py --search``). A fast run makes a short search of its own. It keeps
    what it finds, so that its figures search for each plan once.
    """
    if not context.fast:
        make = _stored if objective == "served" else _searched
        return pd.DataFrame(make(context, setting, objective))
    depends = (digests.code_digest(__name__), digests.data_digest(DATA), setting, objective, context.seed)
    digest = hashlib.sha256(repr(depends).encode()).hexdigest()[:24]
    path = context.folder / CACHE / f"own-plan-{digest}.csv"
    with locked(path):
        if not path.is_file():
            table = pd.DataFrame(_searched(context, setting, objective))
            _files.write_whole(path, table.to_csv(index=False).encode())
        return pd.read_csv(path, keep_default_na=False, na_values=[""])


def _stored(context: Context, setting: Setting, objective: str) -> list[dict[str, Any]]:
    plan = stored_served_plan(setting)
    values: dict[str, Any] = {key: value for key, value in flow_fields(plan).items() if key != "gap"}
    values |= served_values([helix_simulation(plan, "offline", offline_requests())], context)
    return _rows(setting, objective, plan.placement, values)


def _searched(context: Context, setting: Setting, objective: str) -> list[dict[str, Any]]:
    context.say(f"{setting.setup} {setting.model}, {objective}")
    problem = setting.problem()
    limits: dict[str, Any] = {"time_limit_s": COUNTED_S, "deterministic": True}
    if context.fast:
        limits = {"time_limit_s": FAST_TIME_LIMIT_S}
    if objective == "served":
        limits |= {"max_simulations": FAST_MAX_SIMULATIONS, "jobs": 2}
    plan = make_plan(
        problem.cluster,
        problem.model,
        objective=objective,
        seed=context.seed,
        **limits,
    )
    context.measured[f"seconds {setting.setup} {setting.model} {objective}"] = round(plan.seconds, 1)
    values: dict[str, Any] = {key: value for key, value in flow_fields(plan).items() if key != "gap"}
    if plan.served:
        values["decode_tokens_per_s"] = plan.served.decode_tokens_per_s
        values["ease"] = json.dumps(plan.served.ease)
    as_simulated = own_plan(setting, objective, plan.placement, plan.served.ease if plan.served else {})
    values |= served_values([helix_simulation(as_simulated, "offline", offline_requests())], context)
    return _rows(setting, objective, plan.placement, values)


@experiment(
    "own-plans",
    title="Our plans for the published settings: most flow, and most served",
    paper="Beyond the paper",
    draw=draw_own_plans,
    part=own_plan_part,
    minutes=2.0,
    text="The published Helix plan, its placement with all links and our split of the flow, our plan with the largest "
    "flow, and our plan that serves most, as stored in data/served_plans. Left: max flow, % of the proven bound. "
    "Right: offline throughput by the published rules in our simulator on the published stream, over that of Helix's "
    "plan. The table also has means over six request streams, mean and 95th percentile of the latencies, and each mean "
    "latency that is above the published plan's. The plan that serves most does not have the largest flow: long chains "
    "of machines carry more flow, but every decode step takes longer in them.",
)
def own_plans(context: Context) -> pd.DataFrame:
    """One row for each node of each plan.

    Columns: setup, model, objective, node, start and end; the plan's flow and bound; what it serves offline by the
    published rules, on the published stream, and as means over six streams. A fast run also has what its search
    measured, and which kinds of machine the flow spares. Objectives beside ours: ``published`` (paper_tokens_per_s is
    the paper's own figure), ``fair base`` (its placement, all links, our split) and ``served, first split`` (our
    placement that serves most, with the maximum flow that networkx finds, as the published scheduler has).
    """
    tables = []
    for setting in SETTINGS.values():
        ours = {objective: own_plan_part(context, setting, objective) for objective in OBJECTIVES}
        if context.fast:
            (served,) = plans_in(ours["served"], setting, ["served"]).values()
        else:
            served = stored_served_plan(setting)
        steps = variants(setting, served)
        values: dict[str, Any] = {"paper_tokens_per_s": paper_tokens_per_s(setting)}
        base = _means(steps["published"], context)
        for name, simulations in {
            "published": steps["published"],
            "fair base": steps["fair base"],
            "served, first split": steps["ours, first split"],
        }.items():
            placement = {node: span for one in simulations for node, span in one.plan.placement.items()}
            values["flow_tokens_per_s"] = sum(one.plan.flow_tokens_per_s for one in simulations)
            measured = served_values(simulations, context, base)
            tables.append(pd.DataFrame(_rows(setting, name, placement, {**values, **measured})))
            values = {}
        for part in ours.values():
            latencies = {phase: float(part[f"{phase}_latency_s"].iloc[0]) for phase in base.latency_s}
            missed = Means(0.0, 0.0, latencies, {}).missed(base)
            tables.append(part.assign(missed="; ".join(missed)))
    return pd.concat(tables, ignore_index=True)


def served_values(
    simulations: Sequence[Simulation], context: Context, base: Means | None = None
) -> dict[str, float | str]:
    """What a plan serves offline by the published rules, by column; `base`: whose mean latencies it is held against.

    The figures of the evaluation run the same simulations of the published stream, and read the outcomes that are kept
    here.
    """
    means = _means(simulations, context)
    values: dict[str, float | str] = {OFFLINE: means.first_stream_tokens_per_s}
    values["six_streams_tokens_per_s"] = means.decode_tokens_per_s
    for phase, seconds in means.latency_s.items():
        values |= {f"{phase}_latency_s": seconds, f"{phase}_latency_p95_s": means.p95_s[phase]}
    return values if base is None else {**values, "missed": "; ".join(means.missed(base))}


def _means(simulations: Sequence[Simulation], context: Context) -> Means:
    """Means over the streams; a fast run has the published one alone."""
    seeds = STREAM_SEEDS[:1] if context.fast else STREAM_SEEDS
    seeded = [replace(one, seed=context.seed) for one in simulations]
    return means_of(seeded, lambda each: simulated(each, context).metrics, seeds)


def _rows(setting: Setting, objective: str, placement: Placement, values: dict[str, Any]) -> list[dict[str, Any]]:
    fixed = {"setup": setting.setup, "model": setting.model, "objective": objective}
    return [{**fixed, "node": n, "start": s, "end": e, **values} for n, (s, e) in placement.items()]
