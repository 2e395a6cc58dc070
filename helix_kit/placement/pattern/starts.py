"""Placements that need no search: the baselines on the whole cluster and on its regions and kinds, and one chain.

The planner starts from the best of them, so no plan carries less than any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from helix_kit.errors import InfeasibleError
from helix_kit.flow import Placement
from helix_kit.placement import baselines
from helix_kit.placement.groups import Group
from helix_kit.placement.problem import Problem

Method = Callable[[Problem], Placement]
"""A method that may raise InfeasibleError."""


def start_placements(
    problem: Problem,
    groups: Sequence[Group],
    seed: int,
    value_of: Callable[[Placement], float],
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[Placement]:
    """Placements to start from, those of the fastest methods first.

    Each baseline is tried on the whole cluster. Then the best baseline of each part is joined over the parts, for parts
    that are regions, kinds, or kinds within a region. Parts that cannot hold the model stay empty.

    Parameters
    ----------
    problem, groups
        The problem and its interchangeable nodes.
    seed
        Seed of the baselines that draw.
    value_of
        Tokens/s of a placement.
    should_stop
        Asked before each part. The baselines on the whole cluster are tried in any case.
    """
    methods = _methods(seed)
    for method in methods:
        yield from _tried(problem, method)
    parts_by: list[list[list[str]]] = []
    for key in (lambda g: g.region, lambda g: g.kind, lambda g: (g.region, g.kind)):
        parts: dict[object, list[str]] = {}
        for group in groups:
            parts.setdefault(key(group), []).extend(group.nodes)
        split = list(parts.values())
        if len(split) > 1 and split not in parts_by:
            parts_by.append(split)
    for split in parts_by:
        joined: dict[str, tuple[int, int]] = {}
        for names in split:
            if should_stop():
                return
            if sum(problem.max_layers(n) for n in names) >= problem.num_layers:
                joined |= _best_of_part(problem, names, methods, value_of)
        if joined:
            yield joined


def _best_of_part(
    problem: Problem, names: Sequence[str], methods: Sequence[Method], value_of: Callable[[Placement], float]
) -> Placement:
    """The best baseline on some of the nodes; they can hold the model together."""
    part = replace(problem, cluster=problem.cluster.subset(list(names)))
    found = [placement for method in methods for placement in _tried(part, method)]
    return max(found, key=value_of, default={})


def _methods(seed: int) -> list[Method]:
    return [
        replicas,
        baselines.swarm_placement,
        lambda problem: baselines.petals_placement(problem, seed),
        baselines.parallax_placement,
        baselines.proportional_placement,
        lambda problem: baselines.separate_pipelines(problem)[0],
        lambda problem: baselines.separate_pipelines(problem, plus=True)[0],
    ]


def replicas(problem: Problem) -> Placement:
    """The whole model on each node that holds it.

    Raises InfeasibleError when no node does.
    """
    placement = {
        n.name: (0, problem.num_layers)
        for n in problem.cluster.nodes
        if problem.max_layers(n.name) == problem.num_layers and problem.throughput(n.name, problem.num_layers) > 0
    }
    if not placement:
        raise InfeasibleError("no node holds the whole model")
    return placement


def _tried(problem: Problem, method: Method) -> Iterator[Placement]:
    """The placement of a method, unless it finds none or overfills a node's memory."""
    try:
        placement = method(problem)
    except InfeasibleError:
        return
    if problem.holds(placement):
        yield placement
