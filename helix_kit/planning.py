"""The verb `plan`: read the descriptions, check the options, and ask for the plan of the objective.

Objective ``flow`` is answered by `helix_kit.placement`, objectives ``served`` and ``goodput`` by `helix_kit.search`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helix_kit._deprecation import renamed_keywords
from helix_kit.cluster import Cluster, load_cluster
from helix_kit.errors import InputError
from helix_kit.metrics import SLO
from helix_kit.model import Model, load_model
from helix_kit.placement.method import FlowSplit, PlanOptions
from helix_kit.placement.plan import Plan
from helix_kit.placement.planner import check_names, plan_problem, read_options
from helix_kit.placement.problem import Problem
from helix_kit.placement.watch import Incumbent, Progress, Stop, Watch
from helix_kit.profiles import Profile
from helix_kit.profiles.engines import EngineRecord, load_engine
from helix_kit.search.options import ServedOptions
from helix_kit.typical_request import MeanLengths

if TYPE_CHECKING:
    from helix_kit.workload.lengths import LengthPairs, PlannedFor

OBJECTIVES = ("flow", "served", "goodput")


@renamed_keywords(time_limit="time_limit_s", rate="rate_per_s")
def plan(
    cluster: Cluster | str | Path,
    model: Model | str | Path,
    *,
    method: str = "pattern",
    objective: str = "flow",
    solver: str = "highs",
    time_limit_s: float = 60.0,
    seed: int = 0,
    partial_inference: bool = True,
    profiles: Mapping[str, Profile] | None = None,
    engine: str | Path | EngineRecord | None = None,
    memory_share: float | None = None,
    quantize: str | None = None,
    workload: PlannedFor | None = None,
    flow_split: FlowSplit = "balanced",
    max_stages: int | None = None,
    pins: Mapping[str, tuple[int, int]] | None = None,
    base: Plan | None = None,
    price_per_gb: float = 0.0,
    slo: SLO | str | None = None,
    progress: Progress | None = None,
    stop: Stop | None = None,
    incumbent: Incumbent | None = None,
    **more: Any,
) -> Plan:
    """Place the model's layers on the cluster's nodes.

    Parameters
    ----------
    cluster, model
        Descriptions, or what `load_cluster` and `load_model` accept: names of presets, or files.
    method
        ``pattern`` (the default: stages by column generation), ``paper-milp`` (Helix, section 4.4), or a baseline:
        ``swarm``, ``petals``, ``separate``, ``separate-plus``, ``proportional``, ``parallax``; or ``replicas``
        (pipelines that share no node, by an integer program). Or one of your own: a name given to
        `helix_kit.register_method`, ``module:function`` or ``file.py:function``.
    objective
        ``flow`` (the paper's: tokens/s of the maximum flow, proven in seconds) or ``served`` (tokens/s in the
        simulator, searched for until the time limit) or ``goodput`` (requests/s in the simulator that keep `slo`, at
        `rate_per_s`; without a rate the highest rate at which the SLO holds).
    solver
        ``highs``, ``glpk`` or ``gurobi``, for the methods that solve programs.
    time_limit_s
        Seconds after which the best plan found is returned. A search for the flow ends before only when the proven gap
        is below 0.1 %.
    seed
        Seed of random choices. The time limit and the machine's speed decide how far the search comes, so two calls may
        give two plans. With ``deterministic=True`` work is counted instead, and the same call gives the same bytes.
    partial_inference
        Whether a request may enter a node's range after its first layer.
    profiles
        Measured profiles by kind of machine, which are used in place of the shipped tables.
    engine
        The serving engine that will run the plan: a name of `helix_kit.profiles.engines.engine_names`, a YAML file, or
        a record. The speed and memory of machines are then those of its steps, `simulate` and `sweep` follow its rules,
        and, where it serves replicas as vLLM does, ``pattern`` means ``replicas``. None: our runtime.
    memory_share
        Share of each GPU's memory for weights, embeddings and KV cache, where a profile is an estimate. None: as the
        cluster says (0.9 unless it has a `memory_share`).
    quantize
        ``int4`` or ``int8``: plan for the model with its projections rounded to these when they are loaded
        (`Model.quantized`). `serve` then rounds them by itself. None: as the model says.
    workload
        What the plan is for: a `Workload`, a pair (input tokens, output tokens) of mean lengths, the name of a sampled
        workload, or a trace file. Its mean lengths decide the speed of machines, what links carry and which ranges
        leave room for a request; objective ``served`` simulates requests of its lengths. None: the conversation trace
        of 2023, or what the published estimate assumes where the cluster has ``throughput: published``.
    flow_split
        Which of the maximum flows requests follow: ``balanced`` loads nodes evenly, ``any`` is the first one that
        networkx finds on our network. The published program takes the first one too, on a network of another order.
    max_stages
        The largest number of nodes that a request may pass (method ``pattern``). Fewer hops mean lower latency.
    pins
        Node name -> layer range [start, end) that it must hold (method ``pattern``).
    base, price_per_gb
        A plan in use, and the tokens/s that each GB of weights loaded anew must gain: the plan is then changed only
        where that pays.
    slo
        For objective ``goodput``: limits of a request and the share that keeps them, or text such as
        ``"ttft:0.5 tpot:0.05 at:0.9"``.
    progress
        Called with (seconds, best value, bound, message), values in tokens/s.
    stop
        A `threading.Event` or callable, asked often; once it is set, the best plan so far is returned.
    incumbent
        Called with each better placement while the solve goes on: node name -> layer range [start, end).
    more
        Objective ``flow``: the other fields of `helix_kit.placement.method.PlanOptions`, such as ``prove``,
        ``deterministic`` and ``patience_s``, and
        ``degree``, ``initial``, ``mip_gap``, ``tighten`` and ``write_lp`` of method ``paper-milp``. Objective
        ``served`` and ``goodput``: the fields of `helix_kit.search.ServedOptions`, such as ``mode``, ``rate_per_s`` and
        ``max_simulations``.

    Returns
    -------
    Plan
        The placement, the flow that it carries in tokens/s, proven bounds on any placement's flow, and the gap.

    Raises
    ------
    InputError
        For a description or an option that is wrong.
    InfeasibleError
        When no placement carries any flow, or none keeps to the pins and to `max_stages`.

    Examples
    --------
    >>> from helix_kit.cluster import Cluster
    >>> from helix_kit.model import Model
    >>> result = plan(Cluster.preset("single24"), Model.preset("llama2-70b"), time_limit_s=30)
    >>> round(result.flow_tokens_per_s, 1), result.gap < 0.001
    (2045.6, True)
    """
    if objective not in OBJECTIVES:
        raise InputError(f"expected one of {', '.join(OBJECTIVES)}", field="objective", value=objective)
    given: dict[str, Any] = {
        "method": method, "solver": solver, "time_limit_s": time_limit_s, "seed": seed,
        "partial_inference": partial_inference, "flow_split": flow_split, "max_stages": max_stages, "pins": pins,
        "base": base, "price_per_gb": price_per_gb,
    }  # fmt: skip
    if "deterministic" in more:
        given["deterministic"] = more.pop("deterministic")
    options = read_options({**given, **more} if objective == "flow" else given)
    served = ServedOptions()
    if (slo is None) == (objective == "goodput"):
        raise InputError("expected with objective 'goodput', and only there", field="slo", value=slo)
    if objective != "flow":
        _check_served(options, objective)
        check_names(more, [f.name for f in fields(ServedOptions) if f.name != "slo"], f"of objective {objective!r}")
        if slo is not None:
            more = {"mode": "online", **more, "slo": SLO.parse(slo) if isinstance(slo, str) else slo}
        served = ServedOptions(**more)
    cluster = cluster if isinstance(cluster, Cluster) else load_cluster(cluster)
    model = model if isinstance(model, Model) else load_model(model)
    if quantize is not None:
        model = model.quantized(quantize)
    record = load_engine(engine) if isinstance(engine, str | Path) else engine
    if objective == "goodput" and record is not None and record.execution == "replicas":
        expected = (
            f"expected flow or served with engine {record.name}; `helix-kit sweep PLAN --slo LIMITS` then finds the "
            "rate at which the limits hold"
        )
        raise InputError(expected, field="objective", value=objective)
    if memory_share is not None:
        cluster = cluster.with_memory_share(memory_share)
        record = record.with_rules(memory_share=memory_share) if record else None
    planned_for, pairs = _planned_for(workload)
    problem = Problem.of(cluster, model, profiles, planned_for, record)
    begin = partial(Watch, options.time_limit_s, progress, stop, incumbent, counted=options.deterministic)
    watch = begin()
    if objective != "flow":
        # The simulator takes seconds to load, which count: only these objectives need it.
        from helix_kit.simulator.first_run import compile_once

        if compile_once(served.execution, record, watch.stopped):
            # Compiling, which is done once for all searches, does not count.
            watch = begin()
    if record is not None and record.execution == "replicas":
        if options.method == "pattern" and not options.pins:
            options = replace(options, method="replicas")
        if objective == "served":
            from helix_kit.search.engines import plan_replicas

            return plan_replicas(problem, options, served, watch=watch, lengths=pairs)
    if objective == "flow":
        return plan_problem(problem, options, progress=progress, stop=stop, incumbent=incumbent)
    from helix_kit.search import plan_served

    watch.report(bound=problem.compute_bound)
    return plan_served(problem, options, served, watch=watch, lengths=pairs)


def _planned_for(workload: PlannedFor | None) -> tuple[MeanLengths | None, LengthPairs]:
    """Mean lengths to plan for, and pairs of lengths to simulate with; None and none where no workload is given."""
    if workload is None:
        return None, ()
    from helix_kit.workload.lengths import length_pairs, mean_lengths, workload_for

    requests = workload_for(workload)
    return mean_lengths(requests), length_pairs(requests)


def _check_served(options: PlanOptions, objective: str) -> None:
    """Raise InputError for options that only objective ``flow`` takes."""
    if options.base is not None:
        raise InputError("expected objective 'flow' with a plan to change", field="objective", value=objective)
    if options.price_per_gb:
        raise InputError("expected only with objective 'flow'", field="price_per_gb", value=options.price_per_gb)
    if options.method != "pattern":
        expected = f"expected only with objective 'flow', not {objective!r}"
        raise InputError(expected, field="method", value=options.method)


__all__ = ["OBJECTIVES", "plan"]
