"""Least change: a better plan, where each GB of weights that a node loads anew has a price.

The value of a placement is its flow - price x GB moved. Three placements compete: the new optimum with its ranges given
to interchangeable nodes such that little moves; the same with nodes put back to their old ranges where that saves more
than it costs; and the old placement improved node by node.
"""

from __future__ import annotations

from collections.abc import Sequence

from helix_kit.flow import Placement
from helix_kit.placement.groups import Group
from helix_kit.placement.method import Task
from helix_kit.placement.problem import Problem
from helix_kit.placement.weights_to_load import gb_to_load, layers_to_load, tables_to_load

MAX_SWEEPS = 4
"""Passes over all nodes in which a placement is improved."""


def moved_gb(problem: Problem, old: Placement, new: Placement) -> float:
    """GB of weights that nodes hold in one placement and not in another, as `Plan.diff` counts them.

    The embedding goes with the first layer and the output projection with the last.

    Parameters
    ----------
    problem
        Cluster and model.
    old, new
        Node name -> layer range [start, end).

    Returns
    -------
    float
        GB that nodes have to load to come from `old` to `new`.

    Examples
    --------
    >>> from helix_kit.cluster import Cluster
    >>> from helix_kit.model import Model
    >>> problem = Problem.of(Cluster.preset("single24"), Model.preset("llama-30b"))
    >>> moved_gb(problem, {"T4-0": (0, 6)}, {"T4-0": (2, 7)}) == problem.model.layer_gb
    True
    """
    model = problem.model
    tables_gb = sum(tables_to_load(model, old.get(name), span) for name, span in new.items()) * model.embedding_gb
    if model.is_uniform:
        return sum(layers_to_load(old.get(name), span) for name, span in new.items()) * model.layer_gb + tables_gb
    return sum(gb_to_load(model, old.get(name), span) for name, span in new.items()) + tables_gb


def least_change(task: Task, old: Placement, optimum: Placement) -> Placement:
    """The placement with the largest flow - price x GB moved that is found from two starts.

    Parameters
    ----------
    task
        The problem, the clock, and ``options.price_per_gb`` in tokens/s.
    old
        The placement in use.
    optimum
        The placement that a method found without regard to `old`.

    Returns
    -------
    Placement
        Node name -> layer range [start, end).

    Examples
    --------
    >>> least_change(task, plan_in_use.placement, placed.placement)                  # doctest: +SKIP
    """
    problem, price = task.problem, task.options.price_per_gb

    def net(placement: Placement) -> float:
        flow = task.max_flow(placement).tokens_per_s
        return flow - price * moved_gb(problem, old, placement) if flow > 0 else float("-inf")

    def improve(placement: Placement, ranges: list[tuple[int, int]]) -> Placement:
        """Give each node in turn its old range, none, or one of `ranges`, as long as the value grows."""
        value = net(placement)
        for _ in range(MAX_SWEEPS):
            value_before = value
            for name in [n.name for n in problem.cluster.nodes]:
                for span in dict.fromkeys([old.get(name), None, *ranges]):
                    if task.watch.is_over():
                        return placement
                    if span == placement.get(name) or (span and not problem.fits(name, *span)):
                        continue
                    others = {n: s for n, s in placement.items() if n != name}
                    trial = others if span is None else {**others, name: span}
                    # Coverage is a bound on the flow, and far quicker to compute.
                    if _coverage(problem, trial) - price * moved_gb(problem, old, trial) <= value + 1e-6:
                        continue
                    trial_value = net(trial)
                    if trial_value > value + 1e-6:
                        placement, value = trial, trial_value
            if value <= value_before:
                break
        return placement

    near = align(optimum, old, task.groups)
    improved = [improve(near, []), improve(dict(old), sorted(set(old.values())))] if old else [near]
    return max([*improved, near, dict(old)], key=net)


def align(new: Placement, old: Placement, groups: Sequence[Group]) -> Placement:
    """`new` with each group's ranges given to its nodes so that they overlap with `old`, by a greedy.

    Parameters
    ----------
    new, old
        Node name -> layer range [start, end).
    groups
        The interchangeable nodes.

    Returns
    -------
    Placement
        The same ranges for each group as `new`, so the same flow.

    Examples
    --------
    >>> group = Group("T4", "local", ("a", "b"), (1.0, 1.0))
    >>> align({"a": (2, 4), "b": (0, 2)}, {"a": (0, 2)}, [group])
    {'a': (0, 2), 'b': (2, 4)}
    """
    aligned: dict[str, tuple[int, int]] = {}
    for group in groups:
        spans = [new[n] for n in group.nodes if n in new]
        pairs = sorted(
            (-_overlap(span, old.get(node)), span_index, node_index)
            for span_index, span in enumerate(spans)
            for node_index, node in enumerate(group.nodes)
        )
        taken_spans: set[int] = set()
        taken_nodes: set[int] = set()
        for _, span_index, node_index in pairs:
            if span_index not in taken_spans and node_index not in taken_nodes:
                taken_spans.add(span_index)
                taken_nodes.add(node_index)
                aligned[group.nodes[node_index]] = spans[span_index]
    return aligned


def _overlap(a: tuple[int, int], b: tuple[int, int] | None) -> int:
    return 0 if b is None else max(0, min(a[1], b[1]) - max(a[0], b[0]))


def _coverage(problem: Problem, placement: Placement) -> float:
    """The least, over layers, of the summed T of the nodes that hold it, in tokens/s."""
    held = [0.0] * problem.num_layers
    for name, (start, end) in placement.items():
        throughput = problem.range_throughput(name, start, end)
        for layer in range(start, end):
            held[layer] += throughput
    return min(held)


__all__ = ["align", "least_change", "moved_gb"]
