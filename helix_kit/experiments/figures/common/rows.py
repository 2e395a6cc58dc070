"""Rows of tables that several experiments share: metrics of runs, and flows of plans."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from helix_kit.errors import InfeasibleError

if TYPE_CHECKING:
    from helix_kit.cluster import Cluster
    from helix_kit.experiments.machinery.registry import Context
    from helix_kit.model import Model
    from helix_kit.placement.plan import Plan

COLUMNS = ("section", "setup", "model", "mode", "method", "source", "metric", "value")
"""Columns of a table of metrics, which has one row for each metric."""
SIMULATION, PROTOTYPE, OURS = "published simulation", "published prototype", "ours"
BASELINES = ("swarm", "separate", "separate_plus")
"""Methods of the evaluation that Helix is compared with."""
OWN_PLAN = "ours, own plan"
"""The source of values from our simulator on our plan, for methods that schedule but do not place layers."""


class Case(NamedTuple):
    """What is compared: a section of the paper, a cluster, a model, and how requests come."""

    section: str
    setup: str
    model: str
    mode: str


def metric_rows(case: Case, method: str, values: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    """Rows of `COLUMNS` for one method, from source -> metric -> value."""
    return [
        {**case._asdict(), "method": method, "source": source, "metric": metric, "value": value}
        for source, metrics in values.items()
        for metric, value in metrics.items()
    ]


def flow_fields(plan: Plan) -> dict[str, float]:
    """A plan's flow and bound in tokens/s, and the gap between them."""
    return {
        "flow_tokens_per_s": plan.flow_tokens_per_s,
        "bound_tokens_per_s": plan.bound_tokens_per_s,
        "gap": plan.gap,
    }


def method_rows(
    keys: Mapping[str, Any],
    cluster: Cluster,
    model: Model,
    methods: Iterable[tuple[str, Mapping[str, Any]]],
    context: Context,
) -> Iterator[tuple[dict[str, Any], Plan]]:
    """A row (`keys`, method, flow, bound, gap) and the plan of each method.

    `methods` are pairs of a label and keywords of `plan_problem`. A method that finds no plan has no row.
    """
    from helix_kit.placement.planner import plan_problem
    from helix_kit.placement.problem import Problem

    try:
        problem = Problem.of(cluster, model)
    except InfeasibleError:
        return  # the model does not fit, so no method finds a plan
    for label, options in methods:
        context.say(f"{' '.join(str(k) for k in keys.values())} {label}".strip())
        try:
            plan = plan_problem(problem, **{"seed": context.seed, **options})
        except InfeasibleError:
            continue
        yield {**keys, "method": label, **flow_fields(plan)}, plan
