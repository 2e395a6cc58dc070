"""Complete a placement around nodes that are pinned: the placement editor's "fix the rest".

Two ways are tried, and the better result is kept. The planner with pins also proves a bound where it can. Hill climbing
takes a fraction of a second and can also keep nodes empty. It maximises the smallest capacity of any layer, which is
the flow where no link is full and requests may enter ranges part-way. Each result's flow is an exact maximum flow.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Mapping

import numpy as np

from helix_kit._deprecation import renamed_keywords
from helix_kit.errors import HelixKitError, InfeasibleError
from helix_kit.flow import Placement
from helix_kit.placement.method import PlanOptions
from helix_kit.placement.plan import Plan
from helix_kit.placement.planner import plan_problem
from helix_kit.placement.problem import Problem
from helix_kit.placement.watch import Stop

PATIENCE_S = 1.0
"""The planner ends after this many seconds without a better plan: a user waits for the answer."""


@renamed_keywords(time_limit="time_limit_s")
def fix_the_rest(plan: Plan, pinned: Iterable[str], *, time_limit_s: float = 5.0, stop: Stop | None = None) -> Plan:
    """The best plan found in which some nodes keep their layers and all others may move.

    Parameters
    ----------
    plan
        The plan to complete; it may carry no flow.
    pinned
        Nodes that keep their layers. A node that is not in the plan stays without layers.
    time_limit_s
        Seconds for the planner; hill climbing ends at the same time.
    stop
        A `threading.Event` or callable that ends the planner early.

    Returns
    -------
    Plan
        The plan with the larger flow of the two ways described above, with the smallest bound that was proven.

    Raises
    ------
    InfeasibleError
        When the other nodes cannot hold the layers that the pinned ones leave open.

    Examples
    --------
    >>> from helix_kit import Cluster, Model, plan
    >>> cluster = Cluster.model_validate({"name": "six", "nodes": [{"gpu": "L4", "count": 6}]})
    >>> six = plan(cluster, Model.preset("llama-30b"), method="proportional")
    >>> fixed = fix_the_rest(six, ["L4-0"], time_limit_s=2.0)
    >>> fixed.placement["L4-0"] == six.placement["L4-0"], fixed.method
    (True, 'proportional + edits')
    """
    names = list(pinned)
    fixed = {name: plan.placement[name] for name in names if name in plan.placement}
    off = {name for name in names if name not in plan.placement}
    deadline = time.perf_counter() + time_limit_s
    found = [_climbed(plan, start, frozenset(names), deadline) for start in _starts(plan, fixed, off)]
    if not off and plan.partial_inference:
        with contextlib.suppress(HelixKitError):  # hill climbing may still have a result
            options = PlanOptions(
                time_limit_s=time_limit_s, seed=plan.seed, flow_split=plan.flow_split, pins=fixed, patience_s=PATIENCE_S
            )
            found.append(plan_problem(plan.problem, options, stop=stop))
    best = max(found, key=lambda p: p.flow_tokens_per_s)
    if best.flow_tokens_per_s <= 0:
        raise InfeasibleError("the other nodes cannot cover the layers that the pinned ones leave open")
    bound = min([p.bound_tokens_per_s for p in found if p.bounds], default=plan.problem.compute_bound)
    value = best.flow_tokens_per_s
    method = f"{plan.method.removesuffix(' + edits')} + edits"
    return best.model_copy(
        update={"method": method, "bound_tokens_per_s": bound, "gap": max(0.0, bound - value) / value}
    )


def climbed(problem: Problem, start: Placement, kept: frozenset[str], deadline: float) -> dict[str, tuple[int, int]]:
    """A placement after hill climbing until `deadline` (of `time.perf_counter`), where nodes in `kept` do not move."""
    return _climb(problem, start, kept, deadline)


def _climbed(plan: Plan, start: Placement, kept: frozenset[str], deadline: float) -> Plan:
    return plan.rearranged(_climb(plan.problem, start, kept, deadline))


def _starts(plan: Plan, fixed: Mapping[str, tuple[int, int]], off: set[str]) -> list[dict[str, tuple[int, int]]]:
    """Placements from which hill climbing starts: the plan as it is, and the pinned nodes alone."""
    as_it_is = {n: span for n, span in plan.placement.items() if n not in off} | dict(fixed)
    return [as_it_is, dict(fixed)]


def _climb(problem: Problem, start: Placement, kept: frozenset[str], deadline: float) -> dict[str, tuple[int, int]]:
    """Move one node at a time to where the layers with the least capacity gain most, until no move helps."""
    layers = problem.num_layers
    placement = dict(start)
    served = np.zeros(layers)
    for name, (s, e) in placement.items():
        served[s:e] += problem.range_throughput(name, s, e)
    free = [n.name for n in problem.cluster.nodes if n.name not in kept and problem.max_layers(n.name) > 0]
    options = {kind: _options(problem, name) for name in free for kind in [problem.kind_of[name]]}
    scale = max(problem.compute_bound, 1e-9)
    improved = True
    while improved and time.perf_counter() < deadline:
        improved = False
        # Nodes without layers come first, then all others in cluster order, so that the result is always the same.
        for name in sorted(free, key=lambda n: n in placement):
            if name in placement and time.perf_counter() >= deadline:
                break  # a node without layers still gets some
            spans, adds = options[problem.kind_of[name]]
            without = served.copy()
            if name in placement:
                s, e = placement[name]
                without[s:e] -= problem.range_throughput(name, s, e)
            values = _soft_minimum(without + adds, scale)
            index = int(np.argmax(values))
            now = _soft_minimum(served[None, :], scale)[0]
            if name not in placement or values[index] > now + 1e-9 * abs(now):
                placement[name] = spans[index]
                served = without + adds[index]
                improved = True
    return {n.name: placement[n.name] for n in problem.cluster.nodes if n.name in placement}


def _options(problem: Problem, name: str) -> tuple[list[tuple[int, int]], np.ndarray]:
    """Every range that a node may hold, and what it adds to each layer, shape (ranges, layers)."""
    layers = problem.num_layers
    sizes = range(1, problem.longest_range(name) + 1)
    spans = [(s, s + k) for k in sizes for s in range(layers - k + 1) if problem.fits(name, s, s + k)]
    adds = np.zeros((len(spans), layers))
    for row, (s, e) in zip(adds, spans, strict=True):
        row[s:e] = problem.range_throughput(name, s, e)
    return spans, adds


def _soft_minimum(served: np.ndarray, scale: float) -> np.ndarray:
    """A soft minimum over layers: a move that helps one of several worst layers raises it, the minimum it would not."""
    return -np.log(np.sum(np.exp(-30.0 * np.maximum(served, 0.0) / scale), axis=1))
