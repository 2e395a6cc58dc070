"""Bounds for layers that differ: the least over relaxations in which a layer counts with the weight of its kind.

Every layer is covered by nodes whose T add up to the flow. Give each kind of layer a weight. A node whose range weighs
k then counts as k layers, and carries at most T of the best range of that weight. So a bound holds with weighted layers
in place of L, whatever the weights. Weights of one kind alone, equal weights, and those found from a linear program are
tried, and the least bound counts. Where all layers are alike there is one relaxation, which is the problem itself.

The linear program asks for the largest share t of each kind's layers that nodes can hold for a flow F:

    max t    s.t.  sum_(g, r) min(T_g(r), F) n_c(r) y_gr >= t F L_c  for each kind c,   sum_r y_gr <= n_g,   y >= 0

with n_c(r) layers of kind c in range r. The duals of its first rows are the weights; steps of one weight at a time that
lower bound B2 follow. The gap that is left: a node counts
with the best range of its weight, as if every node could have it, wherever it lies in the model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product

import numpy as np

from helix_kit.placement.bounds.covers import PRECISION, cover_bound
from helix_kit.placement.groups import Group
from helix_kit.placement.problem import Problem

RESOLUTION = 16
"""The largest weight. Weights are whole numbers, so that tables of T stay short."""


def relaxed_groups(problem: Problem, groups: Sequence[Group], weights: tuple[int, ...] = ()) -> list[Group]:
    """The groups with the best range of each weight in place of T(k).

    Parameters
    ----------
    problem
        Cluster, model and throughputs.
    groups
        The nodes.
    weights
        Weight of each kind of layer. Empty: every layer counts 1.

    Returns
    -------
    list of Group
        The groups themselves where all layers are alike.

    Examples
    --------
    >>> from helix_kit.cluster import Cluster
    >>> from helix_kit.model import Model
    >>> from helix_kit.placement.groups import groups_of
    >>> problem = Problem.of(Cluster.preset("single24"), Model.preset("llama2-70b"))
    >>> relaxed_groups(problem, groups_of(problem)) == groups_of(problem)
    True
    """
    if problem.is_uniform:
        return list(groups)
    tables = {group.kind: problem.best_table(group.kind, weights) for group in groups}
    # A group of a plan that overloads nodes has a longer table than their memory allows: it is kept beyond.
    extra = {group.kind: () if weights else group.throughput[len(tables[group.kind]) :] for group in groups}
    return [replace(group, throughput=tables[group.kind] + extra[group.kind]) for group in groups]


def balancing_weights(problem: Problem, groups: Sequence[Group], flow: float) -> tuple[int, ...]:
    """Weights of the kinds of layers by which nodes cannot gain from holding one kind more than another.

    Parameters
    ----------
    problem
        Cluster, model and throughputs; its layers differ.
    groups
        The nodes.
    flow
        F in tokens/s. A node adds at most F to a layer.

    Returns
    -------
    tuple of int
        From 0 to `RESOLUTION`; empty where the linear program has no solution.

    Examples
    --------
    >>> from helix_kit.cluster import Cluster
    >>> from helix_kit.model import Model
    >>> from helix_kit.placement.groups import groups_of
    >>> cluster = Cluster.model_validate({"name": "one", "nodes": [{"gpu": "H100-80G"}]})
    >>> problem = Problem.of(cluster, Model.preset("gpt-oss-120b"))
    >>> max(balancing_weights(problem, groups_of(problem), 10_000.0))
    16
    """
    from scipy.optimize import linprog

    layers = np.array(problem.model.count_kinds(0, problem.num_layers), float)
    columns: list[np.ndarray] = []
    owners: list[int] = []
    for index, group in enumerate(groups):
        node, seen = group.nodes[0], set()
        for k in range(1, problem.longest_range(node) + 1):
            for start in range(problem.num_layers - k + 1):
                mix = problem.model.count_kinds(start, start + k)
                if mix not in seen and problem.fits(node, start, start + k):
                    seen.add(mix)
                    share = min(problem.range_throughput(node, start, start + k) / flow, 1.0)
                    columns.append(share * np.array(mix, float))
                    owners.append(index)
    count, kinds = len(columns), len(layers)
    rows = np.zeros((kinds + len(groups), count + 1))
    rows[:kinds, :count], rows[:kinds, count] = -np.array(columns).T, layers
    rows[kinds:, :count] = np.equal.outer(np.arange(len(groups)), owners)
    limits = np.concatenate([np.zeros(kinds), [g.size for g in groups]])
    solution = linprog(np.append(np.zeros(count), -1.0), A_ub=rows, b_ub=limits, method="highs")
    if not solution.success:
        return ()
    duals = np.maximum(0.0, -solution.ineqlin.marginals[:kinds])
    if duals.max() <= 0:
        return ()
    return tuple(round(w) for w in RESOLUTION * duals / duals.max())


def least_bound(
    problem: Problem, groups: Sequence[Group], bound_of: Callable[[Sequence[Group], int, float], float], high: float
) -> float:
    """The least of a bound over the relaxations.

    Parameters
    ----------
    problem
        Cluster, model and throughputs.
    groups
        The nodes.
    bound_of
        ``bound_of(groups, num_layers, high)``: tokens/s that no placement exceeds.
    high
        A known bound in tokens/s, given to the first call; each next one gets the least so far.

    Returns
    -------
    float
        Tokens/s that no placement exceeds.

    Examples
    --------
    >>> from helix_kit.cluster import Cluster
    >>> from helix_kit.model import Model
    >>> from helix_kit.placement.bounds.spread import spread_bound
    >>> from helix_kit.placement.groups import groups_of
    >>> problem = Problem.of(Cluster.preset("single24"), Model.preset("llama2-70b"))
    >>> bound = least_bound(problem, groups_of(problem), lambda g, n, _: spread_bound(g, n), 1e9)
    >>> bound == spread_bound(groups_of(problem), 80)
    True
    """
    if problem.is_uniform:
        return bound_of(groups, problem.num_layers, high)
    for weights in problem.kind_weights:
        high = min(high, _bound_with(problem, groups, weights, bound_of, high))
    if 0 < high < np.inf and (weights := _found_weights(problem, groups, high)):
        high = min(high, _bound_with(problem, groups, weights, bound_of, high))
    return high


def weights_to_try(problem: Problem, groups: Sequence[Group], high: float) -> list[tuple[int, ...]]:
    """Weights of the kinds of layers that `least_bound` counts with, of which each gives valid prices.

    Parameters
    ----------
    problem
        Cluster, model and throughputs.
    groups
        The nodes.
    high
        A known bound in tokens/s.

    Returns
    -------
    list of tuple of int
        Empty weights: every layer counts 1. They are the only ones where all layers are alike.

    Examples
    --------
    >>> from helix_kit.cluster import Cluster
    >>> from helix_kit.model import Model
    >>> from helix_kit.placement.groups import groups_of
    >>> problem = Problem.of(Cluster.preset("single24"), Model.preset("llama2-70b"))
    >>> weights_to_try(problem, groups_of(problem), 2045.6)
    [()]
    """
    weights = problem.kind_weights
    if problem.is_uniform or not 0 < high < np.inf:
        return weights
    found = _found_weights(problem, groups, high)
    return [*weights, found] if found else weights


def _found_weights(problem: Problem, groups: Sequence[Group], high: float) -> tuple[int, ...]:
    """The weights of the least B2 that is found; remembered, since every bound of a problem asks for them."""
    key = tuple((g.kind, g.region, g.size) for g in groups)
    if key not in problem.weights_found:
        weights = balancing_weights(problem, groups, high)
        best = _cover_bound_with(problem, groups, weights, high) if any(weights) else high
        is_better = any(weights)
        while is_better:
            is_better = False
            for kind, step in product(range(len(weights)), (-1, 1)):
                other = tuple(max(0, w + step * (i == kind)) for i, w in enumerate(weights))
                bound = _cover_bound_with(problem, groups, other, best) if any(other) else best
                if bound < best * (1 - PRECISION):
                    best, weights, is_better = bound, other, True
        problem.weights_found[key] = weights if any(weights) else ()
    return problem.weights_found[key]


def _cover_bound_with(problem: Problem, groups: Sequence[Group], weights: tuple[int, ...], high: float) -> float:
    return _bound_with(problem, groups, weights, lambda g, n, most: cover_bound(g, n, low=0.0, high=most), high)


def _bound_with(
    problem: Problem,
    groups: Sequence[Group],
    weights: tuple[int, ...],
    bound_of: Callable[[Sequence[Group], int, float], float],
    high: float,
) -> float:
    relaxed = [g for g in relaxed_groups(problem, groups, weights) if g.throughput]
    weight = problem.weigh_layers(weights)
    return bound_of(relaxed, weight, high) if weight else high


__all__ = ["balancing_weights", "least_bound", "relaxed_groups", "weights_to_try"]
