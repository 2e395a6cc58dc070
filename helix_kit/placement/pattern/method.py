"""Method ``pattern``, the default: the pattern program over regions or around pins, and annealing."""

from __future__ import annotations

from collections.abc import Sequence

from helix_kit.errors import InfeasibleError
from helix_kit.flow import Placement
from helix_kit.placement.groups import Group
from helix_kit.placement.method import Placed, Task
from helix_kit.placement.pattern.incumbent import Incumbent
from helix_kit.placement.pattern.pins import check_pins
from helix_kit.placement.pattern.rounds import Rounds
from helix_kit.placement.problem import Problem


def place(task: Task) -> Placed:
    """Choose a placement with the pattern program.

    The search starts from the placements that need none, such as the baselines. Rounds of growing budgets then prove
    bounds, run the pattern program over the regions or around pins, and anneal the best placement. They end when the
    gap is closed or the time is over.

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
    >>> from helix_kit.placement.watch import Watch
    >>> cluster = Cluster.model_validate({"name": "pair", "nodes": [{"gpu": "L4", "count": 2}]})
    >>> model = Model.preset("llama2-70b").model_copy(update={"num_layers": 8})
    >>> problem = Problem.of(cluster, model)
    >>> sorted(place(Task(problem, Watch(10.0), groups_of(problem))).placement.values())
    [(0, 4), (4, 8)]
    """
    problem, watch, options = task.problem, task.watch, task.options
    pins = check_pins(problem, options.pins) if options.pins else {}
    if not pins:
        check_depth(problem, options.max_stages)
    best = Incumbent(task)
    best.start(pins)
    # The flow that the plan will carry is computed at the end: its time is set aside.
    reserved_s = best.final_flow_s()
    rounds = Rounds(task, best, pins)
    rounds.run(watch.for_part(max(0.0, watch.left_s - reserved_s)))
    if not best.placement:
        # Both raise the error that says why, if there is no placement at all.
        problem.check_carries()
        best.consider(one_chain(task.groups, problem.num_layers, largest_first=options.max_stages is not None))
    return Placed(best.placement, best.links, bounds=rounds.proven, solver=options.solver)


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
