"""What is left when one machine fails and the placement stays as it is, by the objective of the plan."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from helix_kit.analysis.judge import RUNS_SHARE, SEEDS, Entry, Judge, Worth
from helix_kit.placement.plan import Plan

if TYPE_CHECKING:
    import pandas as pd

TOTAL_S = 10.0
"""Seconds for all machines together, when nothing else is said."""
FLOWS_SHARE = 0.5
"""Share of these seconds, at most, for flows where they are followed by simulations."""


def losses(
    plan: Plan, *, total_s: float = TOTAL_S, progress: Callable[[int, int, str], None] | None = None
) -> pd.DataFrame:
    """What is left when one machine fails and the placement stays as it is.

    For a flow plan that is the maximum flow of the other machines. A served plan is simulated with and without the
    machine, over the same requests. The capacity shares that the plan gives to kinds stay, so that no machine does more
    than the plan lets it. Machines that do the same are looked at once, those with the most flow first.

    Parameters
    ----------
    plan
        The plan whose machines fail, one at a time.
    total_s
        Seconds for all machines together. On a large cluster they may not suffice for all of them.
    progress
        Called with (machines done, machines in all, name of the next machine).

    Returns
    -------
    pandas.DataFrame
        One row a machine, the largest loss first: node, tokens_per_s (what is left: the flow, or decode tokens/s of a
        served plan), loss_tokens_per_s with the ends of its 95 % interval (loss_low, loss_high; equal for a flow),
        loss_percent, and is_predicted: the time was over before the machine's turn. Its loss is then what is expected
        without a simulation, or the flow through it, and has no interval. A difference that the simulation does not
        tell from none is no loss. The attribute ``whole_tokens_per_s`` of the table is what all machines together have
        in the same runs.

    Examples
    --------
    >>> from helix_kit import Cluster, Model, plan
    >>> cluster = Cluster.model_validate({"name": "six", "nodes": [{"gpu": "L4", "count": 6}]})
    >>> six = plan(cluster, Model.preset("llama-30b"), method="proportional")
    >>> losses(six)["loss_percent"].tolist()[0]
    100.0
    """
    import pandas as pd

    began = time.perf_counter()
    judge = Judge(plan)
    flow = plan.max_flow
    alike: dict[tuple[object, ...], list[str]] = {}
    for name in sorted(plan.placement, key=lambda n: -flow.through(n)):
        alike.setdefault(_what_it_does(plan, judge, name), []).append(name)
    groups = list(alike.values())
    whole_entry = judge.entry(plan.problem, plan.placement, as_planned=True)
    flows_until_s = began + total_s * (FLOWS_SHARE if judge.is_served else 1.0)
    left: list[Entry | None] = []
    for number, names in enumerate(groups):
        if progress:
            progress(number if not judge.is_served else 0, len(groups), names[0])
        is_late = time.perf_counter() >= flows_until_s
        rest = {n: span for n, span in plan.placement.items() if n != names[0]}
        left.append(None if is_late else judge.entry(plan.problem, rest, as_planned=True))
    judge.spread_over(RUNS_SHARE * (began + total_s - time.perf_counter()), SEEDS * (len(groups) + 1))
    deadline_s = began + total_s + judge.compiled_s
    whole = judge.worth(whole_entry) if judge.is_served else Worth((plan.flow_tokens_per_s,))
    rows = []
    for number, (names, entry) in enumerate(zip(groups, left, strict=True)):
        if progress and judge.is_served:
            progress(number, len(groups), names[0])
        is_predicted = entry is None or not judge.ends_by(deadline_s)
        if entry is not None and not is_predicted:
            remains = judge.worth(entry)
        else:
            share = 1 - flow.through(names[0]) / plan.flow_tokens_per_s if plan.flow_tokens_per_s else 0.0
            if entry is not None and judge.expected(whole_entry) > 0:
                share = judge.expected(entry) / judge.expected(whole_entry)
            remains = Worth(tuple(min(1.0, max(0.0, share)) * sample for sample in whole.samples))
        loss, low, high = whole.minus(remains)
        if is_predicted:
            low = high = float("nan")
        rows += [
            {
                "node": name,
                "tokens_per_s": min(remains.mean, whole.mean),
                "loss_tokens_per_s": max(0.0, loss),
                "loss_low": low,
                "loss_high": high,
                "loss_percent": 100 * max(0.0, loss) / whole.mean if whole.mean else 0.0,
                "is_predicted": is_predicted,
            }
            for name in names
        ]
    if progress:
        progress(len(groups), len(groups), f"done in {time.perf_counter() - began:.0f} s")
    columns = ["node", "tokens_per_s", "loss_tokens_per_s", "loss_low", "loss_high", "loss_percent", "is_predicted"]
    table = pd.DataFrame(rows, columns=columns)
    table = table.sort_values("loss_tokens_per_s", ascending=False, kind="stable", ignore_index=True)
    table.attrs["whole_tokens_per_s"] = whole.mean
    return table


def _what_it_does(plan: Plan, judge: Judge, name: str) -> tuple[object, ...]:
    """Equal for machines whose losses are equal: of one kind in one region, with the same layers and links.

    Where the split of requests counts, they also carry the same flow.
    """
    node = plan.cluster.node(name)
    has_own_links = any(name in link.ends for link in plan.cluster.network.links)
    if has_own_links or (plan.method.startswith("separate") and not judge.is_served):
        return (name,)
    carried = round(plan.max_flow.through(name), 1) if judge.is_served else None
    return (node.kind, node.region, plan.placement[name], carried)
