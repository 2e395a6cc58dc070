"""The exact program on small problems, against all placements."""

import itertools

import pytest

from helix_kit.placement.groups import Group
from helix_kit.placement.pattern.small import is_small, solve_coverage
from helix_kit.placement.solvers import SolverSettings

LAYERS = 4
GROUPS = [Group("A", "", ("a0", "a1"), (60.0, 35.0, 20.0)), Group("B", "", ("b0",), (50.0, 30.0))]


def best_coverage():
    """The greatest of the least summed T over layers, of every placement."""
    nodes = [(name, group.throughput) for group in GROUPS for name in group.nodes]
    choices = [[(s, s + k, t) for k, t in enumerate(table, 1) for s in range(LAYERS - k + 1)] for _, table in nodes]
    return max(
        min(sum(t for start, end, t in spans if start <= layer < end) for layer in range(LAYERS))
        for spans in itertools.product(*choices)
    )


@pytest.mark.parametrize("solver", ["highs", "glpk"])
def test_coverage_is_the_best_of_all_placements(solver):
    found = solve_coverage(GROUPS, LAYERS, cap_tokens_per_s=1000.0, settings=SolverSettings(solver, 20.0))
    table = {name: group.throughput for group in GROUPS for name in group.nodes}
    held = [
        sum(table[n][end - start - 1] for n, (start, end) in found.placement.items() if start <= layer < end)
        for layer in range(LAYERS)
    ]
    assert min(held) == pytest.approx(best_coverage())
    assert found.bound_tokens_per_s == pytest.approx(best_coverage(), rel=1e-5)


def test_a_bound_given_is_never_exceeded():
    found = solve_coverage(GROUPS, LAYERS, cap_tokens_per_s=25.0, settings=SolverSettings())
    assert best_coverage() > 25.0
    assert found.bound_tokens_per_s == pytest.approx(25.0)


def test_nodes_without_throughput_hold_nothing():
    groups = [Group("A", "", ("a0",), (60.0, 35.0)), Group("B", "", ("b0",), (0.0,))]
    found = solve_coverage(groups, 2, cap_tokens_per_s=100.0, settings=SolverSettings())
    assert found.placement == {"a0": (0, 2)}


def test_few_layer_ranges_are_small():
    """Twenty ranges of one layer and nineteen of two make 39 for each group: 20 groups have 780, 21 have 819."""
    groups = [Group(f"kind{i}", "", ("n",), (2.0, 1.0)) for i in range(21)]
    assert is_small(groups[:20], 20) and not is_small(groups, 20)
