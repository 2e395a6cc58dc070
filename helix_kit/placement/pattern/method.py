"""Method ``pattern``, the default: bounds first, then the pattern program over regions or around pins."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from helix_kit.errors import InfeasibleError
from helix_kit.flow import Placement
from helix_kit.placement import bounds
from helix_kit.placement.baselines import petals_placement, swarm_placement
from helix_kit.placement.groups import Group
from helix_kit.placement.method import Placed, Task
from helix_kit.placement.pattern.depth import flow_within
from helix_kit.placement.pattern.pins import check_pins, place_around_pins
from helix_kit.placement.pattern.regions import place_in_regions
from helix_kit.placement.pattern.small import is_small, solve_coverage
from helix_kit.placement.problem import Problem
from helix_kit.placement.solvers import SolverSettings
from helix_kit.placement.watch import Watch

SMALL_LIMIT_S = 6.0
"""Seconds for the exact program on a small problem."""
B4_LIMIT_S, B4_TIME_SHARE = 10.0, 0.15
"""Seconds, and share of the time left, that B4 may take before the search begins; the smaller counts."""


def place(task: Task) -> Placed:
    """Choose a placement with the pattern program.

    The bounds come first: the search over targets starts at the least of them. Then stages are searched in one region
    or several, or around pins. Problems of a few nodes are solved exactly at the end if a gap is left.

    Parameters
    ----------
    task
        The problem, its options (``max_stages`` and ``pins`` are of this method) and the watch that limits the search.

    Returns
    -------
    Placed
        The best placement found within the time, with the bounds proven on the way.

    Raises
    ------
    InfeasibleError
        When no placement keeps to ``max_stages`` or ``pins``, or none carries flow.

    Examples
    --------
    >>> from helix_kit.cluster import Cluster
    >>> from helix_kit.model import Model
    >>> from helix_kit.placement.groups import groups_of
    >>> cluster = Cluster.model_validate({"name": "pair", "nodes": [{"gpu": "L4", "count": 2}]})
    >>> model = Model.preset("llama2-70b").model_copy(update={"num_layers": 8})
    >>> problem = Problem.of(cluster, model)
    >>> place(Task(problem, Watch(10.0), groups_of(problem))).placement
    {'L4-0': (0, 4), 'L4-1': (4, 8)}
    """
    groups, problem, watch, options = task.groups, task.problem, task.watch, task.options
    proven: dict[str, float] = {}

    def prove(name: str, bound: float) -> float:
        proven[name] = bound
        watch.report(bound=bound)
        return bound

    bound = prove("B1", bounds.spread_bound(groups, problem.num_layers))
    bound = prove("B2", bounds.cover_bound(groups, problem.num_layers, low=0.0, high=bound, should_stop=watch.is_over))
    if options.pins:
        placement = place_around_pins(task, check_pins(problem, options.pins), bound)
        links = None
        if options.max_stages is not None:
            # Pins may make some ways deeper than the cap: then only the links of the shorter ways are left.
            links = flow_within(task, placement, options.max_stages, options.flow_split)[1]
        return Placed(placement, links, bounds=proven, solver=options.solver)
    check_depth(problem, options.max_stages)
    if len({g.region for g in groups}) > 1:
        # B5 and B4 know the links between regions. Proven before the search, they spare it targets above them.
        bound = prove("B5", bounds.region_bound(problem, groups, high=bound, should_stop=watch.is_over))
        prove("B4", _b4(task, bound))
    placement = place_in_regions(task, min(proven.values())) or _place_without_search(task)
    if options.max_stages is None:
        placement = _close_small_gap(task, placement, proven)
    return Placed(placement, bounds=proven, solver=options.solver)


def _b4(task: Task, high: float) -> float:
    """Bound B4, within a share of the time."""
    groups, watch = task.groups, task.watch
    clock = Watch(min(B4_LIMIT_S, B4_TIME_SHARE * watch.left_s), stop=watch.stopped)
    return bounds.pair_bound(
        groups,
        task.problem.num_layers,
        low=0.0,
        high=high,
        fastest_crossing=bounds.fastest_crossing(task.problem, groups),
        effort=bounds.ProofEffort(clock, task.options.solver),
    )


def _place_without_search(task: Task) -> Placement:
    """The best placement that needs no search, for when time runs out before the pattern program gives one."""
    capped = task.options.max_stages is not None
    placements = [one_chain(task.groups, task.problem.num_layers, largest_first=capped)]
    if not capped:
        placements.append(petals_placement(task.problem, task.options.seed))
        with contextlib.suppress(InfeasibleError):
            placements.append(swarm_placement(task.problem))
    return max(placements, key=lambda placement: task.max_flow(placement).tokens_per_s)


def _close_small_gap(task: Task, placement: Placement, proven: dict[str, float]) -> Placement:
    """The placement, or a better one of the exact program if there is a gap and the problem is small.

    The program's bound is added to `proven`.
    """
    value, bound = task.max_flow(placement).tokens_per_s, min(proven.values())
    if value >= bound * (1 - bounds.PRECISION) or not is_small(task.groups, task.problem.num_layers):
        return placement
    limit_s = min(SMALL_LIMIT_S, task.watch.left_s)
    settings = SolverSettings(task.options.solver, limit_s, 1e-6, task.options.seed, task.watch.stopped)
    found = solve_coverage(task.groups, task.problem.num_layers, cap_tokens_per_s=bound, settings=settings)
    if found.bound_tokens_per_s is not None:
        # The solver proves its bound to a relative gap of 1e-6.
        proven["coverage"] = found.bound_tokens_per_s * (1 + 1e-6)
    if found.placement and task.max_flow(found.placement).tokens_per_s > value:
        return found.placement
    return placement


def check_depth(problem: Problem, max_depth: int | None) -> None:
    """Raise InfeasibleError when even the largest nodes in a row are more than `max_depth`."""
    if max_depth is not None and max_depth < problem.fewest_nodes:
        sizes = sorted((problem.max_layers(n.name) for n in problem.cluster.nodes), reverse=True)
        raise InfeasibleError(
            f"at most {max_depth} stages were asked for, but the {max_depth} largest nodes hold "
            f"{sum(sizes[:max_depth])} of {problem.num_layers} layers",
            fix=f"allow {problem.fewest_nodes} stages",
        )


def one_chain(groups: Sequence[Group], num_layers: int, *, largest_first: bool = False) -> Placement:
    """Nodes in a row, the fastest (or largest) first, each with as many layers as it holds.

    Raises InfeasibleError when the nodes that carry flow do not hold the model together: then no placement carries any.
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
    for _, name, size in sorted(nodes, key=lambda n: (-n[2], n[1]) if largest_first else (-n[0], n[1])):
        if at < num_layers:
            placement[name] = (at, min(at + size, num_layers))
            at += size
    return placement
