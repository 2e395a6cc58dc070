"""Column generation against scipy's linear programs, with all columns listed and with columns priced."""

import numpy as np
import pytest
from scipy.optimize import linprog

from helix_kit.placement.solvers.columns import Column, solve_columns


def random_program(seed):
    rng = np.random.default_rng(seed)
    supply = rng.integers(3, 20, 4).astype(float)
    uses = rng.integers(0, 4, (40, 4)).astype(float)
    uses[uses.sum(axis=1) == 0, 0] = 1.0
    return supply, [Column(float(v), u) for v, u in zip(rng.uniform(0.5, 5, 40), uses)]


def reference(supply, columns):
    return -linprog([-c.value for c in columns], A_ub=np.array([c.uses for c in columns]).T, b_ub=supply).fun


@pytest.mark.parametrize("seed", range(8))
def test_listed_columns_reach_the_optimum_and_its_duals(seed):
    supply, columns = random_program(seed)
    found = solve_columns(supply, columns)
    assert found.optimal
    assert found.objective == pytest.approx(reference(supply, columns))
    # Duals prove it: they are worth as much as the objective, and no column is worth more than it uses.
    assert float(supply @ found.duals) == pytest.approx(found.objective)
    assert all(c.value <= float(np.dot(c.uses, found.duals)) + 1e-7 for c in columns)


@pytest.mark.parametrize("seed", range(8))
def test_priced_columns_reach_the_same_optimum(seed):
    supply, columns = random_program(seed)
    asked = []

    def price(duals):
        asked.append(duals)
        return [max(columns, key=lambda c: c.value - float(np.dot(c.uses, duals)))]

    found = solve_columns(supply, [], price)
    assert found.optimal
    assert found.objective == pytest.approx(reference(supply, columns))
    assert len(asked) > 1 and all((duals >= 0).all() for duals in asked)


def test_equal_groups_do_not_cycle():
    """Many ties: equal rows and columns, on which a simplex method without care may go round."""
    columns = [Column(1.0, np.eye(6)[i] + np.eye(6)[j]) for i in range(6) for j in range(i)]
    found = solve_columns([2.0] * 6, columns)
    assert found.optimal
    assert found.objective == pytest.approx(6.0, rel=1e-6)


def test_the_search_ends_early_when_asked():
    supply, columns = random_program(1)
    best = reference(supply, columns)
    enough = solve_columns(supply, columns, enough=best / 2)
    assert best / 2 <= enough.objective <= best * (1 + 1e-6) and not enough.optimal
    assert not solve_columns(supply, columns, should_stop=lambda: True).optimal
    assert not solve_columns(supply, columns, max_pivots=1).optimal


def test_a_column_that_uses_nothing_has_no_limit():
    assert solve_columns([1.0], [Column(1.0, [0.0])]).objective == np.inf
