"""Compilations that a search asked for end with it."""

from helix_kit.placement.annealing import Compilation
from helix_kit.placement.pattern.compiled_steps import CompiledSteps


def test_each_is_made_once_and_none_runs_on():
    with CompiledSteps() as steps:
        assert isinstance(steps.moves, Compilation)
        assert steps.moves is steps.moves
        asked = [steps.moves, steps.crossing_moves, steps.listing, steps.walking]
    assert len({id(c) for c in asked}) == 4
    assert not any(c.is_pending() for c in asked)
