"""Rows of tables that several experiments share: metrics of runs, and flows of plans."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from helix_kit.errors import InfeasibleError

if TYPE_CHECKING:
    from helix_kit.cluster import Cluster
    from helix_kit.experiments.machinery.registry import Context
    from helix_kit.model import Model
    from helix_kit.placement.plan import Plan

SPEED = "decode_tokens_per_s"
COLUMNS = ("section", "setup", "model", "mode", "method", "source", "metric", "value")
"""Of a table of metrics, one row a metric."""
SIMULATION, PROTOTYPE, OURS = "published simulation", "published prototype", "ours"
OWN_PLAN = "ours, own plan"
"""Our simulator, on our plan that is made to serve; of methods that do not place layers."""


def metric_rows(of: Any, method: str, values: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    """Rows of `COLUMNS`: `of` has section, setup, model and mode; `values` are metrics by source."""
    fixed = {"section": of.section, "setup": of.setup, "model": of.model, "mode": of.mode, "method": method}
    return [
        {**fixed, "source": source, "metric": metric, "value": value}
        for source, found in values.items()
        for metric, value in found.items()
    ]


def flow_of(made: Plan) -> dict[str, float]:
    """A plan's flow and bound in tokens/s, and the gap between them."""
    return {
        "flow_tokens_per_s": made.flow_tokens_per_s,
        "bound_tokens_per_s": made.bound_tokens_per_s,
        "gap": made.gap,
    }


def method_rows(
    keys: Mapping[str, Any],
    cluster: Cluster,
    model: Model,
    methods: Iterable[tuple[str, Mapping[str, Any]]],
    context: Context,
) -> Iterator[tuple[dict[str, Any], Plan]]:
    """A row (`keys`, method, flow, bound, gap) and the plan for each (label, options of `plan`) that has one."""
    from helix_kit.planning import plan

    for label, options in methods:
        context.say(f"{' '.join(str(k) for k in keys.values())} {label}".strip())
        try:
            made = plan(cluster, model, **{"seed": context.seed, **options})
        except InfeasibleError:
            continue  # the method has no plan there: no row, no bar
        yield {**keys, "method": label, **flow_of(made)}, made
