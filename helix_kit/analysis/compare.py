"""Plans, schedulers and workloads side by side: one call, one table, and a figure of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from helix_kit._deprecation import renamed_keywords
from helix_kit.errors import HelixKitError, InputError
from helix_kit.placement.plan import Plan
from helix_kit.workload import Workload

if TYPE_CHECKING:
    import pandas as pd

    from helix_kit.cluster import Cluster
    from helix_kit.model import Model

Progress = Callable[[int, int, str], None]
"""Called with (runs done, runs in all, name of the next run)."""
METHODS = ("pattern", "swarm", "petals", "separate", "proportional")


@renamed_keywords(duration="duration_s", warmup="warmup_s", time_limit="time_limit_s")
def compare(
    plans: Iterable[Plan | str],
    workloads: Mapping[str, Workload] | Workload,
    *,
    cluster: Cluster | None = None,
    model: Model | None = None,
    policies: Sequence[str] = ("helix",),
    duration_s: float | None = None,
    warmup_s: float = 0.0,
    time_limit_s: float = 30.0,
    seed: int = 0,
    progress: Progress | None = None,
    **options: Any,
) -> pd.DataFrame:
    """Simulate each plan with each policy on each workload.

    Parameters
    ----------
    plans
        Plans, or names of methods of `helix_kit.plan`; names need `cluster` and `model`.
    workloads
        Name -> workload, or one workload.
    cluster, model
        What plans are made for where `plans` names a method.
    policies
        Names of scheduling policies.
    duration_s, warmup_s
        Measured seconds, after the seconds left out, as in `helix_kit.simulate`. None: the whole workload.
    time_limit_s
        Seconds for each plan that is made here.
    seed
        Seed of planning and simulation.
    progress
        Called with (runs done, runs in all, name of the next run).
    options
        Further options of `helix_kit.simulate`.

    Returns
    -------
    pandas.DataFrame
        One row a run: plan, policy, workload, flow_tokens_per_s, gap, decode_tokens_per_s, prompt_s and decode_s
        (mean latencies in s), prompt_p95_s, decode_p95_s, finished, of (all requests), and problem. A method without a
        plan has its reason in `problem` and no numbers.

    Raises
    ------
    InputError
        When there is nothing to compare, or a method is named without `cluster` and `model`.

    Examples
    --------
    >>> from helix_kit import Cluster, Model, Workload
    >>> six = Cluster.model_validate({"name": "six", "nodes": [{"gpu": "L4", "count": 6}]})
    >>> load = Workload.constant(rate_per_s=0.5, duration_s=4, input_tokens=50, output_tokens=4)
    >>> table = compare(["proportional"], load, cluster=six, model=Model.preset("llama-30b"), duration_s=30)
    >>> table["finished"].tolist()
    [2]
    """
    import pandas as pd

    from helix_kit.simulator import simulate

    named = {"workload": workloads} if isinstance(workloads, Workload) else dict(workloads)
    planned = [(_name(p), _planned(p, cluster, model, time_limit_s, seed)) for p in plans]
    if not planned or not named or not policies:
        raise InputError("expected at least one plan, one policy and one workload", where="compare")
    labels = _unique([name for name, _ in planned])
    rows: list[dict[str, Any]] = []
    total = len(planned) * len(policies) * len(named)
    for label, (_, plan) in zip(labels, planned, strict=True):
        for policy in policies:
            for what, workload in named.items():
                if progress:
                    progress(len(rows), total, f"{label}, {policy}, {what}")
                row: dict[str, Any] = {"plan": label, "policy": policy, "workload": what}
                if isinstance(plan, Plan):
                    row |= {"flow_tokens_per_s": plan.flow_tokens_per_s, "gap": plan.gap}
                    try:
                        run = simulate(
                            plan,
                            workload,
                            policy=policy,
                            duration_s=duration_s,
                            warmup_s=warmup_s,
                            seed=seed,
                            **options,
                        )
                        row |= _numbers(run.summary())
                    except HelixKitError as error:
                        row["problem"] = str(error)
                else:
                    row["problem"] = plan
                rows.append(row)
    if progress:
        progress(total, total, "done")
    columns = ["plan", "policy", "workload", "flow_tokens_per_s", "gap", *_NUMBERS, "problem"]
    return pd.DataFrame(rows).reindex(columns=columns)


_NUMBERS = ("decode_tokens_per_s", "prompt_s", "prompt_p95_s", "decode_s", "decode_p95_s", "finished", "of")


def _numbers(summary: dict[str, Any]) -> dict[str, Any]:
    prompt, decode = summary["prompt_latency_s"], summary["decode_latency_s"]
    values = (summary["decode_tokens_per_s"], prompt["avg"], prompt["p95"], decode["avg"], decode["p95"])
    return dict(zip(_NUMBERS, (*values, summary["finished"], summary["requests"]), strict=True))


def _name(plan: Plan | str) -> str:
    return plan if isinstance(plan, str) else plan.method


def _unique(names: list[str]) -> list[str]:
    return [n if names.count(n) == 1 else f"{n} {names[: i + 1].count(n)}" for i, n in enumerate(names)]


def _planned(
    plan: Plan | str, cluster: Cluster | None, model: Model | None, time_limit_s: float, seed: int
) -> Plan | str:
    """The plan, or the reason why a method has none."""
    if isinstance(plan, Plan):
        return plan
    if cluster is None or model is None:
        raise InputError("methods by name need `cluster` and `model`", where="compare", field="plans", value=plan)
    from helix_kit.planning import plan as solve

    try:
        return solve(cluster, model, method=plan, time_limit_s=time_limit_s, seed=seed)
    except InputError:
        raise
    except HelixKitError as error:
        return str(error)


def plot_comparison(table: pd.DataFrame) -> Any:
    """Throughput and latencies of a table from `compare` as three panels of bars (matplotlib figure)."""
    from helix_kit.plots.compare import plot_comparison as draw

    return draw(table)
