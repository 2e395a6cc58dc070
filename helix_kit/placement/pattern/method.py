"""Method ``pattern``, the default: bounds first, then the pattern program over regions or around pins."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from helix_kit.errors import InfeasibleError
from helix_kit.flow import Edge, Placement
from helix_kit.placement.baselines import petals_placement, swarm_placement
from helix_kit.placement.bounds import bounds
from helix_kit.placement.groups import Group
from helix_kit.placement.method import Placed, Task
from helix_kit.placement.pattern import pins, regions
from helix_kit.placement.pattern import small as coverage
from helix_kit.placement.pattern.depth import flow_within
from helix_kit.placement.watch import Watch

SMALL_SECONDS = 6.0
BOUND_SECONDS, BOUND_SHARE = 10.0, 0.15
"""Most of the time that B4 may take before the search begins."""


def place(task: Task) -> Placed:
    """The best placement of the pattern program within the task's time, and the bounds found on the way."""
    groups, problem, watch = task.groups, task.problem, task.watch
    layers = problem.num_layers
    first = bounds.b1(groups, layers)
    watch.report(bound=first)
    bound = bounds.b2(groups, layers, low=0.0, high=first, should_stop=watch.is_over)
    watch.report(bound=bound)
    proven = {"B1": first, "B2": bound}
    cap = task.options.max_stages
    if task.options.pins:
        checked = pins.check_pins(problem, task.options.pins)
        placement = pins.find(task, checked, bound)
        return Placed(placement, _short_links(task, placement), bounds=proven, solver=task.options.solver)
    check_depth(groups, layers, cap)
    if len({g.region for g in groups}) > 1:
        # Known before the search, they spare the targets that no network lets through.
        proven["B5"] = bounds.b5(problem, groups, high=bound, should_stop=watch.is_over)
        watch.report(bound=proven["B5"])
        proven["B4"] = bounds.b4(
            groups, layers, low=0.0, high=proven["B5"], widest_crossing=bounds.widest_crossing(problem, groups),
            watch=Watch(min(BOUND_SECONDS, BOUND_SHARE * watch.left_s), stop=watch.stopped), solver=task.options.solver,
        )  # fmt: skip
        watch.report(bound=proven["B4"])
    placement = regions.find(task, min(proven.values())) or _without_search(task)
    if cap is None:
        placement = _finish_small(task, placement, proven)
    return Placed(placement, bounds=proven, solver=task.options.solver)


def _short_links(task: Task, placement: Placement) -> set[Edge] | None:
    """Links that keep requests within the cap on depth where pins stand in the way; None: all that fit."""
    cap, options = task.options.max_stages, task.options
    if cap is None:
        return None
    return flow_within(task, placement, cap, options.flow_split)[1]


def _without_search(task: Task) -> Placement:
    """The best plan that takes no search: what there is when time runs out before the program finds any."""
    capped = task.options.max_stages is not None
    found = [one_chain(task.groups, task.problem.num_layers, fewest=capped)]
    if not capped:
        found.append(petals_placement(task.problem, task.options.seed))
        with contextlib.suppress(InfeasibleError):
            found.append(swarm_placement(task.problem))
    return max(found, key=lambda p: task.max_flow(p).tokens_per_s)


def _finish_small(task: Task, placement: Placement, proven: dict[str, float]) -> Placement:
    """Close what gap is left exactly, where the problem is small enough to try every position."""

    def flow(layout: Placement) -> float:
        return task.max_flow(layout).tokens_per_s

    value, best = flow(placement), min(proven.values())
    if value >= best * (1 - bounds.PRECISION) or not coverage.is_small(task.groups, task.problem.num_layers):
        return placement
    found = coverage.solve_coverage(
        task.groups,
        task.problem.num_layers,
        cap=best,
        solver=task.options.solver,
        time_limit_s=min(SMALL_SECONDS, task.watch.left_s),
        stop=task.watch.stopped,
        seed=task.options.seed,
    )
    if found.bound_tokens_per_s is not None:
        proven["coverage"] = found.bound_tokens_per_s * (1 + 1e-6)
    return found.placement if found.placement and flow(found.placement) > value else placement


def check_depth(groups: Sequence[Group], num_layers: int, max_depth: int | None) -> None:
    """Raise InfeasibleError when even the largest nodes in a row are more than `max_depth`."""
    sizes = sorted((g.max_layers for g in groups for _ in g.nodes), reverse=True)
    least = next(n for n in range(1, len(sizes) + 1) if sum(sizes[:n]) >= num_layers)
    if max_depth is not None and max_depth < least:
        raise InfeasibleError(
            f"at most {max_depth} stages were asked for, but the {max_depth} largest nodes hold "
            f"{sum(sizes[:max_depth])} of {num_layers} layers",
            fix=f"allow {least} stages",
        )


def one_chain(groups: Sequence[Group], num_layers: int, *, fewest: bool = False) -> Placement:
    """Nodes in a row, fastest (or with `fewest` largest) first, as many layers as each holds.

    A plan whenever there is one.
    """
    nodes = [(g.throughput[-1], name, g.max_layers) for g in groups for name in g.nodes if g.throughput[-1] > 0]
    if sum(size for _, _, size in nodes) < num_layers:
        raise InfeasibleError(
            "no placement carries any flow: the nodes have no room for a single request's context beside the layers "
            "they would have to hold",
            fix="add a node with more memory",
        )
    placement: dict[str, tuple[int, int]] = {}
    at = 0
    for _, name, size in sorted(nodes, key=lambda n: (-n[2], n[1]) if fewest else (-n[0], n[1])):
        if at < num_layers:
            placement[name] = (at, min(at + size, num_layers))
            at += size
    return placement
