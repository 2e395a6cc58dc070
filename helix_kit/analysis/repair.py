"""Complete a placement around nodes that are pinned: the placement editor's "fix the rest".

Without binding links and with partial inference the flow is the least, over layers, of what the layer's holders
serve together; hill climbing on that is fast, and every candidate that survives is scored by an exact max flow.
The result is good, not proven: the bound that it carries is that of the whole cluster without pins.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

import numpy as np

from helix_kit.errors import InfeasibleError
from helix_kit.flow import Placement
from helix_kit.placement.plan import Plan
from helix_kit.placement.problem import Problem


def fix_the_rest(plan: Plan, pinned: Iterable[str], *, time_limit: float = 5.0) -> Plan:
    """The best plan found in which the nodes `pinned` keep their layers and all others may move.

    Raises InfeasibleError when the other nodes cannot cover what is left.
    """
    fixed = {name: plan.placement[name] for name in pinned if name in plan.placement}
    off = {name for name in pinned if name not in plan.placement}
    deadline = time.perf_counter() + time_limit
    best: Plan | None = None
    for start in _starts(plan, fixed, off):
        placement = _climb(plan.problem, start, frozenset(fixed) | off, deadline)
        made = Plan.from_placement(
            plan.problem,
            placement,
            method=f"{plan.method.removesuffix(' + edits')} + edits",
            bound_tokens_per_s=max(plan.bound_tokens_per_s, plan.flow_tokens_per_s),
            partial_inference=plan.partial_inference,
        )
        if best is None or made.flow_tokens_per_s > best.flow_tokens_per_s:
            best = made
        if time.perf_counter() > deadline:
            break
    if best is None or best.flow_tokens_per_s <= 0:
        raise InfeasibleError("the other nodes cannot cover the layers that the pinned ones leave open")
    return best


def _starts(plan: Plan, fixed: Mapping[str, tuple[int, int]], off: set[str]) -> list[dict[str, tuple[int, int]]]:
    """Where climbing begins: the plan as it is, and the pinned nodes alone."""
    as_it_is = {n: span for n, span in plan.placement.items() if n not in off} | dict(fixed)
    return [as_it_is, dict(fixed)]


def _climb(problem: Problem, start: Placement, kept: frozenset[str], deadline: float) -> dict[str, tuple[int, int]]:
    """Move one node at a time to where the least served layers gain most, until no move helps."""
    layers = problem.num_layers
    placement = dict(start)
    served = np.zeros(layers)
    for name, (s, e) in placement.items():
        served[s:e] += problem.throughput(name, e - s)
    free = [n.name for n in problem.cluster.nodes if n.name not in kept and problem.max_layers(n.name) > 0]
    options = {kind: _options(problem, name) for name in free for kind in [problem.kind_of[name]]}
    scale = max(problem.compute_bound, 1e-9)
    improved = True
    while improved and time.perf_counter() < deadline:
        improved = False
        # First those that hold nothing, then all in turn: the order of the cluster decides, never chance.
        for name in sorted(free, key=lambda n: n in placement):
            spans, adds = options[problem.kind_of[name]]
            without = served.copy()
            if name in placement:
                s, e = placement[name]
                without[s:e] -= problem.throughput(name, e - s)
            values = _worth(without + adds, scale)
            index = int(np.argmax(values))
            now = _worth(served[None, :], scale)[0]
            if name not in placement or values[index] > now + 1e-9 * abs(now):
                placement[name] = spans[index]
                served = without + adds[index]
                improved = True
    return {n.name: placement[n.name] for n in problem.cluster.nodes if n.name in placement}


def _options(problem: Problem, name: str) -> tuple[list[tuple[int, int]], np.ndarray]:
    """Every range that a node may hold, and what it adds to each layer, shape (ranges, layers)."""
    layers = problem.num_layers
    spans = [(s, s + k) for k in range(1, problem.max_layers(name) + 1) for s in range(layers - k + 1)]
    adds = np.zeros((len(spans), layers))
    for row, (s, e) in zip(adds, spans, strict=True):
        row[s:e] = problem.throughput(name, e - s)
    return spans, adds


def _worth(served: np.ndarray, scale: float) -> np.ndarray:
    """A soft minimum over layers, so that a move which helps one of several worst layers counts as progress."""
    return -np.log(np.sum(np.exp(-30.0 * np.maximum(served, 0.0) / scale), axis=1))
