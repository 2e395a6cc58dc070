"""The integer program over covers by hand."""

import pytest

from helix_kit.placement.bounds.cover_program import max_covered_layers
from helix_kit.placement.groups import Group
from helix_kit.placement.solvers import SolverSettings

GROUP = Group("a", "r", ("a0", "a1", "a2"), (10.0, 6.0))
ONE, TWO, PAIR = {(0, 1): 1}, {(0, 2): 1}, {(0, 1): 2}


@pytest.mark.parametrize(
    ("covers", "num_layers", "layers"),
    [
        ([ONE], 9, 3),  # three nodes, a layer each
        ([TWO], 9, 6),
        ([PAIR], 9, 1),  # the third node has no other beside it
        ([ONE, PAIR], 9, 3),
        ([TWO], 5, 5),  # no more than the model has
    ],
)
def test_layers_by_hand(covers, num_layers, layers):
    assert max_covered_layers([GROUP], num_layers, covers, SolverSettings()).value == pytest.approx(layers)


def test_a_needed_pair_costs_a_node():
    assert max_covered_layers([GROUP], 9, [ONE, PAIR], SolverSettings(), pair_needed=True).value == pytest.approx(2)
    assert max_covered_layers([GROUP], 9, [ONE], SolverSettings(), pair_needed=True).infeasible
