"""The pattern program, against all choices of stages."""

import itertools

import pytest

from helix_kit.placement.groups import Group
from helix_kit.placement.pattern.program import choose
from helix_kit.placement.pattern.stages import PatternStage
from helix_kit.placement.solvers import SolverSettings

GROUPS = [Group("A", "", tuple("abcde"), (9.0, 9.0, 9.0)), Group("B", "", tuple("uvw"), (9.0, 9.0))]
STAGES = [
    PatternStage.of(3, [((0, 3),)], GROUPS),
    PatternStage.of(2, [((1, 2),)], GROUPS),
    PatternStage.of(3, [((0, 1), (1, 2))], GROUPS),
    PatternStage.of(5, [((0, 3), (1, 2)), ((0, 3), (0, 2))], GROUPS),
]


def feasible_lengths(supply, max_depth):
    """Layers of every choice of stages that the nodes and the cap on depth allow."""
    return {
        sum(n * s.length for n, s in zip(counts, STAGES))
        for counts in itertools.product(range(6), repeat=len(STAGES))
        if all(sum(n * s.uses[g] for n, s in zip(counts, STAGES)) <= supply[g] for g in range(2))
        and sum(n * s.depth for n, s in zip(counts, STAGES)) <= max_depth
    }


@pytest.mark.parametrize("solver", ["highs", "glpk"])
@pytest.mark.parametrize("num_layers", [4, 6, 11, 14, 21, 22])
@pytest.mark.parametrize("max_depth", [3, 5, 99])
def test_the_model_is_filled_exactly_or_else_with_the_least_excess(solver, num_layers, max_depth):
    supply = [g.size for g in GROUPS]
    cap = None if max_depth == 99 else max_depth
    chosen = choose(STAGES, supply, num_layers, SolverSettings(solver), max_depth=cap)
    enough = [length for length in feasible_lengths(supply, max_depth) if length >= num_layers]
    if not enough:
        assert chosen is None
        return
    assert sum(s.length for s in chosen) == min(enough)
    assert all(sum(s.uses[g] for s in chosen) <= supply[g] for g in range(2))
    assert sum(s.depth for s in chosen) <= max_depth


def test_a_stopped_search_chooses_nothing_more():
    """With an exact filling out of reach, the second program is not solved once stop is set."""
    asked = []

    def stop():
        asked.append(True)
        return True

    assert choose(STAGES[:1], [5, 3], 4, SolverSettings("highs", stop=stop)) is None
    assert asked
