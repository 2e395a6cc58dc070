"""What is left when one machine fails and the placement stays as it is, by the objective of the plan."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from helix_kit.analysis.judge import SEEDS, Judge, Worth
from helix_kit.placement.plan import Plan

if TYPE_CHECKING:
    import pandas as pd

TOTAL_S = 10.0
"""Seconds for the simulations of a served plan, about."""


def losses(
    plan: Plan, *, total_s: float = TOTAL_S, progress: Callable[[int, int, str], None] | None = None
) -> pd.DataFrame:
    """What is left when one machine fails and the placement stays as it is.

    For a flow plan that is the maximum flow of the other machines. A served plan is simulated with and without the
    machine, over the same requests. The capacity shares that the plan gives to kinds stay, so that no machine does more
    than the plan lets it.

    Parameters
    ----------
    plan
        The plan whose machines fail, one at a time.
    total_s
        Seconds for the simulations of a served plan, about. Machines that do the same are simulated once.
    progress
        Called with (machines done, machines in all, name of the next machine).

    Returns
    -------
    pandas.DataFrame
        One row a machine, the largest loss first: node, tokens_per_s (what is left: the flow, or decode tokens/s of a
        served plan), loss_tokens_per_s with the ends of its 95 % interval (loss_low, loss_high; equal for a flow), and
        loss_percent. A difference that the simulation does not tell from none is no loss.

    Examples
    --------
    >>> from helix_kit import Cluster, Model, plan
    >>> cluster = Cluster.model_validate({"name": "six", "nodes": [{"gpu": "L4", "count": 6}]})
    >>> six = plan(cluster, Model.preset("llama-30b"), method="proportional")
    >>> losses(six)["loss_percent"].tolist()[0]
    100.0
    """
    import pandas as pd

    judge = Judge(plan)
    problem, flow = plan.problem, plan.max_flow
    alike: dict[tuple[object, ...], list[str]] = {}
    for name, span in plan.placement.items():
        node = plan.cluster.node(name)
        key = (node.kind, node.region, span, round(flow.through(name), 1))
        alike.setdefault(key if judge.is_served else (name,), []).append(name)
    began = time.perf_counter()
    judge.spread_over(total_s, SEEDS * (len(alike) + 1))
    whole = judge.worth(judge.entry(problem, plan.placement, as_planned=True))
    if not judge.is_served:
        whole = Worth((plan.flow_tokens_per_s,))
    rows = []
    for number, names in enumerate(alike.values()):
        if progress:
            progress(number, len(alike), names[0])
        rest = {n: span for n, span in plan.placement.items() if n != names[0]}
        left = judge.worth(judge.entry(problem, rest, as_planned=True))
        loss, low, high = whole.minus(left)
        rows += [
            {
                "node": name,
                "tokens_per_s": min(left.mean, whole.mean),
                "loss_tokens_per_s": max(0.0, loss),
                "loss_low": low,
                "loss_high": high,
                "loss_percent": 100 * max(0.0, loss) / whole.mean if whole.mean else 0.0,
            }
            for name in names
        ]
    if progress:
        progress(len(alike), len(alike), f"done in {time.perf_counter() - began:.0f} s")
    columns = ["node", "tokens_per_s", "loss_tokens_per_s", "loss_low", "loss_high", "loss_percent"]
    table = pd.DataFrame(rows, columns=columns)
    return table.sort_values("loss_tokens_per_s", ascending=False, kind="stable", ignore_index=True)
