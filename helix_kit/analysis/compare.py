"""Plans, schedulers and workloads side by side: one call, one table, and a figure of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helix_kit._deprecation import renamed_keywords
from helix_kit._plugins import is_own_code
from helix_kit.analysis.cost import Cost, cost
from helix_kit.errors import HelixKitError, InputError
from helix_kit.metrics import SLO
from helix_kit.placement.plan import Plan
from helix_kit.scheduling import Policy, PolicyChoice, policy_name, resolve_policy
from helix_kit.scheduling.policies import fresh_policy
from helix_kit.workload import Workload

if TYPE_CHECKING:
    import pandas as pd

    from helix_kit.analysis.comparison import Comparison
    from helix_kit.cluster import Cluster
    from helix_kit.model import Model

PlanChoice = Plan | str | Path
"""A plan, a file with one, or the name of a method."""
Progress = Callable[[int, int, str], None]
"""Called with (runs done, runs in all, name of the next run)."""
METHODS = ("pattern", "swarm", "petals", "separate", "proportional")


@renamed_keywords(duration="duration_s", warmup="warmup_s", time_limit="time_limit_s")
def compare(
    plans: PlanChoice | Iterable[PlanChoice] | Mapping[str, PlanChoice],
    workloads: Mapping[str, Workload] | Iterable[Workload] | Workload,
    *,
    cluster: Cluster | None = None,
    model: Model | None = None,
    policies: PolicyChoice | Sequence[PolicyChoice] = ("helix",),
    duration_s: float | None = None,
    warmup_s: float = 0.0,
    time_limit_s: float = 30.0,
    seed: int = 0,
    slo: SLO | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Comparison:
    """Simulate each plan with each policy on each workload.

    Parameters
    ----------
    plans
        Plans, names of files (plan.json), or names of methods of `helix_kit.plan`, which need `cluster` and `model`. In
        a mapping, name -> plan, the names are those of the table. Otherwise a plan is called after its method, with
        cluster and model where the plans differ in them, and a file after itself.
    workloads
        Name -> workload, or workloads, which are called after their source, or one workload.
    cluster, model
        What plans are made for where `plans` names a method.
    policies
        Scheduling policies: names, ``module:Class``, classes, or objects. Each run gets a copy of an object, as it was.
    duration_s, warmup_s
        Measured seconds, after the seconds left out, as in `helix_kit.simulate`. None: the whole workload.
    time_limit_s
        Seconds for each plan that is made here.
    seed
        Seed of planning and simulation.
    slo
        Limits of a request: adds the columns goodput_per_s and attainment.
    progress
        Called with (runs done, runs in all, name of the next run).
    options
        Further options of `helix_kit.simulate`.

    Returns
    -------
    Comparison
        A pandas.DataFrame with one row a run, which prints as a rounded table. Its columns: plan, policy, workload,
        flow_tokens_per_s, gap, decode_tokens_per_s, prompt_s and decode_s (mean latencies in s), prompt_p95_s,
        decode_p95_s, finished, of (all requests), usd_per_hour (machines in use, and egress), usd_per_million_tokens
        and joules_per_token (over input and output tokens; empty where a price or a power is unknown), and problem. A
        method without a plan has its reason in `problem` and no numbers.

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
    from helix_kit.analysis.comparison import Comparison
    from helix_kit.simulator import whole_run

    chosen = _listed(policies, str | Policy | type)
    for policy in chosen:
        resolve_policy(policy)
    # The package's own policies are listed as they were typed: shortest-queue stays shortest-queue.
    names = [p if isinstance(p, str) and not is_own_code(p) else policy_name(p) for p in chosen]
    routed = list(zip(_unique(names), chosen, strict=True))
    named = _named_workloads(workloads)
    wanted = dict(plans) if isinstance(plans, Mapping) else dict(enumerate(_listed(plans, Plan | str | Path)))
    planned = [(key, _planned(p, cluster, model, time_limit_s, seed)) for key, p in wanted.items()]
    if not planned or not named or not routed:
        raise InputError("expected at least one plan, one policy and one workload", where="compare")
    labels = [str(key) for key in wanted] if isinstance(plans, Mapping) else _labels(list(wanted.values()), planned)
    rows: list[dict[str, Any]] = []
    total = len(planned) * len(routed) * len(named)
    for label, (_, plan) in zip(labels, planned, strict=True):
        for policy_label, policy in routed:
            for what, workload in named.items():
                if progress:
                    progress(len(rows), total, f"{label}, {policy_label}, {what}")
                row: dict[str, Any] = {"plan": label, "policy": policy_label, "workload": what}
                if isinstance(plan, Plan):
                    row |= {"flow_tokens_per_s": plan.flow_tokens_per_s, "gap": plan.gap}
                    try:
                        run = whole_run(
                            plan,
                            workload,
                            policy=fresh_policy(policy),
                            duration_s=duration_s,
                            warmup_s=warmup_s,
                            seed=seed,
                            **options,
                        )
                        row |= _numbers(run.summary()) | _costs(cost(plan, run))
                        if slo is not None:
                            good = run.goodput(slo)
                            row |= {"goodput_per_s": good.requests_per_s, "attainment": good.attainment}
                    except HelixKitError as error:
                        row["problem"] = str(error)
                else:
                    row["problem"] = plan
                rows.append(row)
    if progress:
        progress(total, total, "done")
    under_slo = [] if slo is None else ["goodput_per_s", "attainment"]
    columns = ["plan", "policy", "workload", "flow_tokens_per_s", "gap", *_NUMBERS, *under_slo, *_COSTS, "problem"]
    return Comparison(rows, columns=columns)


_NUMBERS = ("decode_tokens_per_s", "prompt_s", "prompt_p95_s", "decode_s", "decode_p95_s", "finished", "of")


_COSTS = ("usd_per_hour", "usd_per_million_tokens", "joules_per_token")


def _costs(paid: Cost) -> dict[str, Any]:
    """Dollars per hour of the machines in use and of egress, and dollars and joules for the tokens served."""
    return dict(zip(_COSTS, (paid.total_usd_per_hour, paid.usd_per_million_tokens, paid.joules_per_token), strict=True))


def _numbers(summary: dict[str, Any]) -> dict[str, Any]:
    prompt, decode = summary["prompt_latency_s"], summary["decode_latency_s"]
    values = (summary["decode_tokens_per_s"], prompt["avg"], prompt["p95"], decode["avg"], decode["p95"])
    return dict(zip(_NUMBERS, (*values, summary["finished"], summary["requests"]), strict=True))


def _listed(value: Any, kind: Any) -> list[Any]:
    """The value as a list; a single one, of type `kind`, gives a list of one. (Plans and texts are iterable, too.)"""
    if isinstance(value, kind):
        return [value]
    if not isinstance(value, Iterable):
        raise InputError("expected a list", where="compare", value=value, field="plans or policies")
    return list(value)


def _named_workloads(workloads: Mapping[str, Workload] | Iterable[Workload] | Workload) -> dict[str, Workload]:
    if isinstance(workloads, Workload):
        return {"workload": workloads}
    if isinstance(workloads, Mapping):
        return dict(workloads)
    listed = list(workloads)
    if not all(isinstance(w, Workload) for w in listed):
        raise InputError("expected workloads, or name -> workload", where="compare", field="workloads")
    return dict(zip(_unique([w.source for w in listed]), listed, strict=True))


def _labels(choices: list[PlanChoice], planned: list[tuple[Any, Plan | str]]) -> list[str]:
    """A name for each plan: its file or its method, with cluster and model where plans of one name differ in them."""
    names = [
        str(choice) if isinstance(choice, str) and not _is_file(choice)
        else Path(choice).stem if isinstance(choice, str | Path)
        else choice.method
        for choice in choices
    ]  # fmt: skip
    for joint, part in ((" on ", "cluster"), (" with ", "model")):
        places = [getattr(p, part).name if isinstance(p, Plan) else "" for _, p in planned]
        same = {name: {place for n, place in zip(names, places, strict=True) if n == name} for name in names}
        names = [
            f"{n}{joint}{place}" if place and len(same[n]) > 1 else n for n, place in zip(names, places, strict=True)
        ]
    return _unique(names)


def _unique(names: list[str]) -> list[str]:
    return [n if names.count(n) == 1 else f"{n} {names[: i + 1].count(n)}" for i, n in enumerate(names)]


def _is_file(choice: str | Path) -> bool:
    return isinstance(choice, Path) or choice.endswith(".json")


def _planned(
    plan: PlanChoice, cluster: Cluster | None, model: Model | None, time_limit_s: float, seed: int
) -> Plan | str:
    """The plan, or the reason why a method has none."""
    if isinstance(plan, Plan):
        return plan
    if not isinstance(plan, str | Path):
        raise InputError("expected a plan, a file or the name of a method", where="compare", field="plans", value=plan)
    if _is_file(plan):
        return Plan.load(plan)
    if cluster is None or model is None:
        raise InputError("methods by name need `cluster` and `model`", where="compare", field="plans", value=plan)
    from helix_kit.planning import plan as solve

    try:
        return solve(cluster, model, method=str(plan), time_limit_s=time_limit_s, seed=seed)
    except InputError:
        raise
    except HelixKitError as error:
        return str(error)


def plot_comparison(table: pd.DataFrame) -> Any:
    """Throughput and latencies of a table from `compare` as three panels of bars (matplotlib figure)."""
    from helix_kit.plots.compare import plot_comparison as draw

    return draw(table)
