"""Run a placement method under a clock, and return a Plan with its value, proven bound and gap.

The value is always the exact maximum flow of the placement (`helix_kit.flow`), whatever a solver reports.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from numbers import Real
from typing import Any

from helix_kit._deprecation import renamed_keywords
from helix_kit._wording import count_text
from helix_kit.cluster import COORDINATOR, UNCONNECTED_GBPS
from helix_kit.errors import InfeasibleError, InputError
from helix_kit.placement import bounds
from helix_kit.placement.groups import groups_of
from helix_kit.placement.idle import idle_notes
from helix_kit.placement.least_change import least_change, moved_gb
from helix_kit.placement.method import Placed, PlanOptions, Task
from helix_kit.placement.methods import METHODS, is_built_in, method_named
from helix_kit.placement.own_method import check_bounds, run_own_method
from helix_kit.placement.plan import Plan
from helix_kit.placement.problem import Problem
from helix_kit.placement.solvers import check_solver
from helix_kit.placement.watch import Incumbent, Progress, Stop, Watch
from helix_kit.placement.weights_to_load import layers_to_load, same_machines

PROVEN_GAP = 1e-3
"""A plan counts as the best one from this gap on, at which a search ends too."""
FRESH_SHARE = 0.6
"""Share of the time limit for a plan from scratch, where a plan in use is to be changed."""


def read_options(keywords: Mapping[str, Any]) -> PlanOptions:
    """The options that a user gave as keywords, checked.

    Parameters
    ----------
    keywords
        Names and values of fields of `PlanOptions`.

    Raises
    ------
    InputError
        For an unknown name, a wrong value, or an option that the chosen method does not take.

    Returns
    -------
    PlanOptions
        The options, with defaults for those not given.

    Examples
    --------
    >>> read_options({"method": "petals", "seed": 3}).solver
    'highs'
    >>> read_options({"max_stage": 9})
    Traceback (most recent call last):
    ...
    helix_kit.errors.InputError: max_stage = 9: unknown option of method 'pattern': did you mean 'max_stages'?
    """
    method = keywords.get("method", PlanOptions.method)
    of_others = {name for other in METHODS.values() for name in other.options} - set(method_named(method).options)
    names = [f.name for f in fields(PlanOptions)]
    check_names(
        {name: value for name, value in keywords.items() if name not in of_others},
        [name for name in names if name not in of_others],
        f"of method {method!r}",
    )
    options = PlanOptions(**keywords)
    check_options(options)
    return options


def check_names(keywords: Mapping[str, Any], known: Sequence[str], of_what: str) -> None:
    """Raise InputError for the first keyword that is not known, with the nearest known name.

    Parameters
    ----------
    keywords
        Names and values that a user gave.
    known
        Names that are accepted.
    of_what
        What the options belong to, for the message.

    Examples
    --------
    >>> check_names({"seed": 1}, ["seed"], "of method 'petals'")
    """
    for name, value in keywords.items():
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(known)}"
            raise InputError(f"unknown option {of_what}: {hint}", field=name, value=value)


def check_options(options: PlanOptions) -> None:
    """Raise InputError for a wrong value, or an option that the chosen method does not take.

    Parameters
    ----------
    options
        The options as a record.

    Examples
    --------
    >>> check_options(PlanOptions(method="pattern", max_stages=12))
    """
    taken = method_named(options.method).options
    if options.flow_split not in ("balanced", "any"):
        raise InputError("expected balanced or any", field="flow_split", value=options.flow_split)
    if isinstance(options.seed, bool) or not isinstance(options.seed, int) or options.seed < 0:
        raise InputError("expected a whole number of at least 0", field="seed", value=options.seed)
    if not isinstance(options.time_limit_s, Real) or not float(options.time_limit_s) > 0:
        raise InputError("expected a number of seconds above 0", field="time_limit_s", value=options.time_limit_s)
    check_solver(options.solver)
    for owner, method in METHODS.items():
        for name in method.options:
            value = getattr(options, name)
            if name not in taken and value != getattr(PlanOptions, name):
                raise InputError(
                    f"expected only with method {owner!r}, not {options.method!r}", field=name, value=value
                )
    if options.max_stages is not None and options.max_stages < 1:
        raise InputError("expected at least 1", field="max_stages", value=options.max_stages)


@renamed_keywords(time_limit="time_limit_s")
def plan_problem(
    problem: Problem,
    options: PlanOptions | None = None,
    *,
    progress: Progress | None = None,
    stop: Stop | None = None,
    incumbent: Incumbent | None = None,
    **keywords: Any,
) -> Plan:
    """Like `helix_kit.plan`, for a problem that is built already, such as one with throughputs of your own.

    Parameters
    ----------
    problem
        Cluster, model and throughputs.
    options
        The options as a record.
    progress
        Called with (seconds, best value, bound, message), values in tokens/s.
    stop
        A `threading.Event` or callable; once it is set, the best plan so far is returned.
    incumbent
        Called with each better placement while the solve goes on: node name -> layer range [start, end).
    keywords
        The options as keywords instead: the fields of `PlanOptions`.

    Returns
    -------
    Plan
        The placement with the largest flow found, with proven bounds.

    Raises
    ------
    InputError
        For a wrong option.
    InfeasibleError
        When the method finds no placement that carries any flow.

    Examples
    --------
    >>> from helix_kit.cluster import Cluster
    >>> from helix_kit.model import Model
    >>> cluster = Cluster.model_validate({"name": "six", "nodes": [{"gpu": "L4", "count": 6}]})
    >>> plan = plan_problem(Problem.of(cluster, Model.preset("llama-30b")), method="proportional")
    >>> plan.placement["L4-0"], round(plan.flow_tokens_per_s, 1)
    ((0, 10), 222.1)
    """
    if options is None:
        options = read_options(keywords)
    elif keywords:
        raise TypeError("expected either a record of options or keywords, not both")
    else:
        check_options(options)
    method = method_named(options.method)
    method.load()
    watch = Watch(options.time_limit_s, progress, stop, incumbent, counted=options.deterministic)
    task = Task(problem, watch, groups_of(problem), options)
    watch.report(bound=problem.compute_bound)
    trusted = is_built_in(options.method)
    # A change to a plan in use is searched after a plan from scratch, and needs time of its own.
    fresh = task if options.base is None else replace(task, watch=watch.for_part(FRESH_SHARE * watch.left_s))
    placed = method.place(fresh) if trusted else run_own_method(options.method, method, fresh)
    if options.base is not None:
        old = same_machines(options.base.problem, options.base.placement, problem)
        placed.placement = least_change(task, old, placed.placement)
        placed.links = None
        loading = sum(layers_to_load(old.get(n), span) > 0 for n, span in placed.placement.items())
        placed.notes.append(
            f"{moved_gb(problem, old, placed.placement):.1f} GB of weights to load anew, "
            f"on {count_text(loading, 'node')}; `helix-kit diff` lists them"
        )
    flow = task.max_flow(placed.placement, placed.links, options.flow_split)
    watch.report(value=flow.tokens_per_s, placement=placed.placement)
    if not trusted:
        check_bounds(options.method, placed, flow.tokens_per_s)
    proven = _bounds(task, flow.tokens_per_s, placed)
    bound = min(proven.values())
    watch.report(bound=bound, message="done")
    if flow.tokens_per_s <= 0:
        raise InfeasibleError(
            f"method {options.method!r} found no placement of {problem.model.name} on cluster {problem.cluster.name} "
            "that carries any flow",
            fix=_connection(problem) or (None if options.method == "pattern" else "use method 'pattern'"),
        )
    otherwise = f"method {options.method!r} gives {{them}} no part"
    if options.method == "pattern":
        is_best = bound <= flow.tokens_per_s * (1 + PROVEN_GAP)
        otherwise = "no placement carries more" if is_best else "no placement with {them} was found that carries more"
    return Plan.from_placement(
        problem,
        dict(placed.placement),
        method=options.method,
        solver=placed.solver,
        flow=flow,
        bound_tokens_per_s=bound,
        bounds=proven,
        seconds=watch.seconds,
        seed=options.seed,
        partial_inference=options.partial_inference,
        flow_split=options.flow_split,
        progress=tuple(watch.history),
        notes=(*placed.notes, *idle_notes(problem, flow, otherwise=otherwise)),
    )


def _connection(problem: Problem) -> str | None:
    """What to connect, where links of bandwidth 0 keep requests from the machines; None where no link has it."""
    cluster, names = problem.cluster, [n.name for n in problem.cluster.nodes]

    def is_cut(source: str, target: str) -> bool:
        return cluster.link(source, target).bandwidth_gbps <= UNCONNECTED_GBPS

    if all(is_cut(COORDINATOR, name) or is_cut(name, COORDINATOR) for name in names):
        return (
            f"connect the coordinator (region {cluster.coordinator.region}) with the machines: its links have a "
            "bandwidth of 0"
        )
    if any(is_cut(a, b) for a in names for b in names if a != b):
        return "connect more machines with each other: some of their links have a bandwidth of 0"
    return None


def _bounds(task: Task, value: float, placed: Placed) -> dict[str, float]:
    """Every bound known for the problem by its label. A bound is searched only where it may still lower the least.

    `value` is the flow of the placement in tokens/s: nothing below it is tried.
    """
    problem, watch, groups = task.problem, task.watch, task.groups
    if not problem.holds(placed.placement):
        # Bounds for nodes within their maximum do not hold for such a plan: all nodes of the kind may hold as much.
        groups = groups_of(problem, forced=placed.placement)
        placed.notes.append("some nodes hold more layers than their maximum: bounds allow all of their kind the same")
    num_layers, several_regions = problem.num_layers, len({g.region for g in groups}) > 1
    spread = bounds.least_bound(problem, groups, lambda g, n, _: bounds.spread_bound(g, n), math.inf)
    proven = {"compute": problem.compute_bound, "B1": spread, **placed.bounds}
    if not task.options.prove:
        return proven

    def gap_is_open() -> bool:
        return value < min(proven.values()) * (1 - bounds.PRECISION)

    effort = bounds.ProofEffort(watch, task.options.solver)
    if gap_is_open() and "B2" not in proven:
        best = min(proven.values())
        proven["B2"] = bounds.least_bound(
            problem,
            groups,
            lambda g, n, high: bounds.cover_bound(g, n, low=value, high=high, should_stop=watch.is_over),
            best,
        )
    if gap_is_open() and placed.solver is not None and not watch.is_over():
        best = min(proven.values())
        proven["B3"] = bounds.least_bound(
            problem,
            groups,
            lambda g, n, high: bounds.whole_cover_bound(g, n, low=value, high=high, effort=effort),
            best,
        )
    if gap_is_open() and several_regions and "B5" not in proven:
        best = min(proven.values())
        relaxed = bounds.relaxed_groups(problem, groups)
        proven["B5"] = bounds.region_bound(problem, relaxed, high=best, should_stop=watch.is_over)
    if gap_is_open() and several_regions and "B4" not in proven and not watch.is_over():
        proven["B4"] = bounds.pair_bound(
            bounds.relaxed_groups(problem, groups),
            num_layers,
            low=value,
            high=min(proven.values()),
            fastest_crossing=bounds.fastest_crossing(problem, groups),
            effort=effort,
        )
    # Flows are whole milli-tokens; a bound below the value by rounding alone is the value.
    return {name: max(b, value) if b > value * (1 - 1e-6) else b for name, b in proven.items()}


__all__ = ["check_names", "check_options", "plan_problem", "read_options"]
