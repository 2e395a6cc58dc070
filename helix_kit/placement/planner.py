"""The verb `plan`: choose a method, run it under a clock, and return a Plan with value, proven bound and gap.

The value is always the exact maximum flow of the placement (`helix_kit.flow`), whatever a solver says.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any, Literal

from helix_kit.cluster import Cluster, load_cluster
from helix_kit.errors import InfeasibleError, InputError
from helix_kit.flow import Edge
from helix_kit.model import Model, load_model
from helix_kit.placement.baselines import heuristics
from helix_kit.placement.baselines import others as baselines
from helix_kit.placement.bounds import bounds
from helix_kit.placement.groups import Group, groups_of
from helix_kit.placement.method import Found, Task
from helix_kit.placement.plan import Plan
from helix_kit.placement.problem import Problem
from helix_kit.placement.solvers import check_solver
from helix_kit.placement.watch import Progress, Stop, Watch
from helix_kit.profiles import Profile

METHODS = ("pattern", "paper-milp", "swarm", "petals", "separate", "separate-plus", "proportional", "parallax")
OBJECTIVES = ("flow", "served")
OPTIONS = ("prove",)
METHOD_OPTIONS = {"paper-milp": ("degree", "initial", "mip_gap", "tighten", "write_lp")}
_SERVED = "helix_kit.search"
"""Where objective ``served`` lives: above the simulator, so by name, and only when it is asked for."""


def plan(
    cluster: Cluster | str | Path,
    model: Model | str | Path,
    *,
    method: str = "pattern",
    objective: str = "flow",
    solver: str = "highs",
    time_limit: float = 60.0,
    seed: int = 0,
    partial_inference: bool = True,
    profiles: Mapping[str, Profile] | None = None,
    flow_split: Literal["balanced", "any"] = "balanced",
    max_stages: int | None = None,
    pins: Mapping[str, tuple[int, int]] | None = None,
    base: Plan | None = None,
    price_per_gb: float = 0.0,
    progress: Progress | None = None,
    stop: Stop | None = None,
    **options: Any,
) -> Plan:
    """Place the model's layers on the cluster's nodes.

    Parameters
    ----------
    cluster, model
        Descriptions, or what `load_cluster` and `load_model` accept.
    objective
        ``flow`` (the paper's: tokens/s of the maximum flow) or ``served`` (tokens/s in the simulator: see
        `helix_kit.search.plan_served` for its options `mode`, `rate`, `execution`, `latency_limit_s`,
        `max_simulations`; it takes minutes, not seconds).
    method
        ``pattern`` (the default: stages by column generation), ``paper-milp`` (Helix, section 4.4), or a baseline:
        ``swarm``, ``petals``, ``separate``, ``separate-plus``, ``proportional``, ``parallax``.
    solver
        ``highs``, ``glpk`` or ``gurobi``, for the methods that need one.
    time_limit
        Seconds; the best plan at that time is returned.
    partial_inference
        Whether a request may enter a node's range after its first layer.
    profiles
        Measured profiles by kind of machine, which go before the shipped tables.
    flow_split
        Which of the maximum flows requests follow: ``balanced`` loads nodes evenly, ``any`` is the first met.
    max_stages
        Most nodes that a request may pass (method ``pattern``): fewer hops mean lower latency.
    pins
        Node name -> layer range [start, end) that it must hold (method ``pattern``).
    base, price_per_gb
        A plan in use, and the tokens/s that a GB of weights loaded anew must be worth: least change from `base`.
    progress
        Called with (seconds, best value, bound, message), values in tokens/s.
    stop
        A `threading.Event` or callable, asked often; once set, the best plan so far is returned.
    options
        Of method ``paper-milp``: ``degree`` (links kept per node), ``initial`` (heuristic start), ``mip_gap``,
        ``tighten`` (coefficients cut at a proven bound) and ``write_lp`` (file for the program). Of any:
        ``prove`` (default True; without, no bounds beyond those found on the way).

    Raises InputError for a wrong option and InfeasibleError when there is no plan.
    """
    if method not in METHODS:
        raise InputError(f"expected one of {', '.join(METHODS)}", field="method", value=method)
    if objective not in OBJECTIVES:
        raise InputError(f"expected one of {', '.join(OBJECTIVES)}", field="objective", value=objective)
    if flow_split not in ("balanced", "any"):
        raise InputError("expected balanced or any", field="flow_split", value=flow_split)
    if not time_limit > 0:
        raise InputError("expected a number of seconds above 0", field="time_limit", value=time_limit)
    check_solver(solver)
    if not isinstance(cluster, Cluster):
        cluster = load_cluster(cluster)
    if not isinstance(model, Model):
        model = load_model(model)
    problem = Problem.of(cluster, model, profiles)
    if objective == "served":
        if base is not None:
            raise InputError("expected objective 'flow' with a plan to change", field="objective", value=objective)
        if price_per_gb:
            raise InputError("expected only with objective 'flow'", field="price_per_gb", value=price_per_gb)
        if method != "pattern":
            raise InputError("expected only with objective 'flow', not 'served'", field="method", value=method)
        watch = Watch(time_limit, progress, stop)
        watch.report(bound=problem.compute_bound)
        search = import_module(_SERVED).plan_served
        _check_known(options, list(signature(search).parameters)[1:], "of objective 'served'")
        served: Plan = search(
            problem, solver=solver, seed=seed, watch=watch, flow_split=flow_split,
            partial_inference=partial_inference, pins=pins, max_stages=_checked_depth(max_stages, method), **options,
        )  # fmt: skip
        return served
    return plan_problem(
        problem,
        method=method,
        solver=solver,
        time_limit=time_limit,
        seed=seed,
        partial_inference=partial_inference,
        flow_split=flow_split,
        max_stages=max_stages,
        pins=pins,
        base=base,
        price_per_gb=price_per_gb,
        progress=progress,
        stop=stop,
        **options,
    )


def plan_problem(
    problem: Problem,
    *,
    method: str = "pattern",
    solver: str = "highs",
    time_limit: float = 60.0,
    seed: int = 0,
    partial_inference: bool = True,
    flow_split: Literal["balanced", "any"] = "balanced",
    max_stages: int | None = None,
    pins: Mapping[str, tuple[int, int]] | None = None,
    base: Plan | None = None,
    price_per_gb: float = 0.0,
    progress: Progress | None = None,
    stop: Stop | None = None,
    **options: Any,
) -> Plan:
    """`plan` for a problem that is built already, such as one with throughputs of your own; objective ``flow``."""
    _check_options(options, method)
    options = {**options, "max_stages": _checked_depth(max_stages, method)}
    if pins:
        from helix_kit.placement.pattern.pins import check_pins

        _only_pattern("pins", method)
        options["pins"] = check_pins(problem, pins)
    watch = Watch(time_limit, progress, stop)
    task = Task(problem, watch, solver, seed, partial_inference, groups_of(problem), options, flow_split)
    watch.report(bound=problem.compute_bound)
    found = _run(method, task)
    if base is not None:
        from helix_kit.placement import least_change as change

        old = {n: span for n, span in base.placement.items() if n in problem.kind_of}
        found.placement = change.find(task, old, price_per_gb, found.placement)
        found.links = None
        found.notes.append(f"{change.moved_gb(problem, old, found.placement):.1f} GB of weights to load anew")
    flow = task.flow(found, flow_split)
    watch.report(value=flow.tokens_per_s)
    proven = _bounds(task, flow.tokens_per_s, found)
    bound = min(proven.values())
    watch.report(bound=bound, message="done")
    if flow.tokens_per_s <= 0:
        raise InfeasibleError(
            f"method {method!r} found no placement of {problem.model.name} on cluster {problem.cluster.name} that "
            "carries any flow",
            fix=None if method == "pattern" else "use method 'pattern'",
        )
    return Plan.from_placement(
        problem,
        found.placement,
        method=method,
        solver=found.solver,
        flow=flow,
        bound_tokens_per_s=bound,
        bounds=proven,
        seconds=watch.seconds,
        seed=seed,
        partial_inference=partial_inference,
        flow_split=flow_split,
        progress=tuple(watch.history),
        notes=tuple(found.notes),
    )


def _wants_b4(groups: Sequence[Group], proven: Mapping[str, float]) -> bool:
    return "B4" not in proven and len({g.region for g in groups}) > 1


def _check_options(options: Mapping[str, Any], method: str) -> None:
    for name, value in options.items():
        others = [m for m, names in METHOD_OPTIONS.items() if name in names and m != method]
        if others:
            raise InputError(f"expected only with method {others[0]!r}, not {method!r}", field=name, value=value)
    _check_known(options, (*OPTIONS, *METHOD_OPTIONS.get(method, ())), f"of method {method!r}")


def _check_known(options: Mapping[str, Any], known: Sequence[str], whose: str) -> None:
    """Raise InputError for the first option that is not among `known`: a typo must not pass in silence."""
    for name, value in options.items():
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(known)}"
            raise InputError(f"unknown option {whose}: {hint}", field=name, value=value)


def _only_pattern(option: str, method: str) -> None:
    if method != "pattern":
        raise InputError(f"expected method 'pattern', which alone knows {option}", field="method", value=method)


def _checked_depth(max_stages: int | None, method: str) -> int | None:
    if max_stages is None:
        return None
    _only_pattern("max_stages", method)
    if max_stages < 1:
        raise InputError("expected at least 1", field="max_stages", value=max_stages)
    return max_stages


def _run(method: str, task: Task) -> Found:
    if method == "pattern":
        from helix_kit.placement.pattern.search import find

        placement, proven = find(task)
        return Found(placement, _short_links(task, placement), bounds=proven, solver=task.solver)
    if method == "paper-milp":
        from helix_kit.placement.paper.method import find as find_paper

        return find_paper(task)
    if method == "swarm":
        return Found(heuristics.swarm(task.problem))
    if method == "petals":
        return Found(heuristics.petals(task.problem, task.seed))
    if method == "proportional":
        return Found(baselines.proportional(task.problem))
    if method == "parallax":
        return Found(baselines.parallax(task.problem))
    placement, links = heuristics.separate(task.problem, plus=method == "separate-plus")
    return Found(placement, links)


def _short_links(task: Task, placement: dict[str, tuple[int, int]]) -> set[Edge] | None:
    """Links that keep requests within a cap on depth where pins stand in the way; None: all that fit."""
    cap = task.options.get("max_stages")
    if cap is None or not task.options.get("pins"):
        return None
    from helix_kit.placement.depth import links_within

    return links_within(task.problem, placement, cap, partial_inference=task.partial_inference, split=task.flow_split)[
        1
    ]


def _bounds(task: Task, value: float, found: Found) -> dict[str, float]:
    """Every bound known for the problem; B2 and B3 are searched only as far as they can help."""
    problem, watch, groups = task.problem, task.watch, task.groups
    if not problem.holds(found.placement):
        # Bounds for nodes within their maximum say nothing about such a plan: let all its kind hold as much.
        groups = groups_of(problem, forced=found.placement)
        found.notes.append("some nodes hold more layers than their maximum: bounds allow all of their kind the same")
    proven = {"compute": problem.compute_bound, "B1": bounds.b1(groups, problem.num_layers), **found.bounds}
    best = min(proven.values())
    if not task.options.get("prove", True):
        return proven
    if value < best * (1 - bounds.PRECISION):
        if "B2" not in proven:
            proven["B2"] = bounds.b2(groups, problem.num_layers, low=value, high=best, over=watch.stopped)
        best = min(proven.values())
    if value < best * (1 - bounds.PRECISION) and found.solver is not None and not watch.over():
        proven["B3"] = bounds.b3(
            groups, problem.num_layers, low=value, high=best, solver=task.solver, watch=watch, time_limit=5.0
        )
    best = min(proven.values())
    if value < best * (1 - bounds.PRECISION) and "B5" not in proven and len({g.region for g in groups}) > 1:
        proven["B5"] = best = bounds.b5(problem, groups, high=best, over=watch.over)
    if value < best * (1 - bounds.PRECISION) and _wants_b4(groups, proven) and not watch.over():
        proven["B4"] = bounds.b4(
            groups,
            problem.num_layers,
            low=value,
            high=best,
            widest_crossing=bounds.widest_crossing(problem, groups),
            solver=task.solver,
            watch=watch,
        )
    # Flows are whole milli-tokens; a bound below the value by rounding alone is the value.
    return {name: max(b, value) if b > value * (1 - 1e-6) else b for name, b in proven.items()}
