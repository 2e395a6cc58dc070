"""What a solver is given and returns: when a value is proven, and the least time."""

from pathlib import Path

import pytest

from helix_kit.placement.solvers.job import Job, Solution, SolverSettings, environment


@pytest.mark.parametrize(
    ("value", "bound", "optimal"),
    [
        (1000.0, 1000.0009, True),
        (1000.0, 1000.0011, False),
        (1000.0, 999.9995, True),  # minimised, or rounded the other way
        (0.0, 9e-7, True),  # small values are compared in absolute terms
        (0.0, 2e-6, False),
        (None, 5.0, False),
        (5.0, None, False),
    ],
)
def test_a_value_is_proven_to_a_millionth(value, bound, optimal):
    assert Solution(value, bound, {}).optimal is optimal


@pytest.mark.parametrize(("given", "seconds"), [(0.0, 0.01), (-4.0, 0.01), (7.5, 7.5)])
def test_a_solver_gets_some_time(given, seconds):
    assert Job(Path("x.lp"), SolverSettings(time_limit_s=given), {}).time_limit_s == seconds


def test_numbers_of_solvers_have_points(monkeypatch):
    """In a German locale GLPK would write 1,5."""
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("MINE", "kept")
    found = environment()
    assert found["LC_ALL"] == "C" and found["MINE"] == "kept"
