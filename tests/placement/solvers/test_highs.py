"""HiGHS takes a first incumbent, reports progress, and takes the same path at every run."""

import random
import signal
import threading
import time

import pyomo.environ as pyo
import pytest

from helix_kit.placement.solvers import SolverSettings, highs, solve_model


def assignment(size=8):
    """Costs at random, each row and column once: solved in a moment."""
    rng = random.Random(3)
    model = pyo.ConcreteModel()
    every = range(size)
    model.take = pyo.Var(every, every, domain=pyo.Binary)
    model.cost = pyo.Objective(expr=sum(rng.randint(1, 99) * model.take[i, j] for i in every for j in every))
    model.rows = pyo.Constraint(every, rule=lambda m, i: sum(m.take[i, j] for j in every) == 1)
    model.columns = pyo.Constraint(every, rule=lambda m, j: sum(m.take[i, j] for i in every) == 1)
    return model


def test_a_first_incumbent_is_kept_when_there_is_no_time():
    """Without time the solver has only what it is given."""
    model = assignment()
    for i, j in model.take:
        model.take[i, j] = int(i == j)
    given = pyo.value(model.cost)
    solution = solve_model(model, SolverSettings(stop=lambda: True, time_limit_s=0.01), warm_start=True)
    assert solution.value is not None and solution.value <= given


def test_progress_ends_at_the_solution():
    seen = []
    solution = solve_model(assignment(), SolverSettings(), progress=lambda value, bound: seen.append((value, bound)))
    assert solution.optimal
    values = [value for value, _ in seen if value is not None]
    assert values == sorted(values, reverse=True)
    assert min(values) == pytest.approx(solution.value)


def test_two_runs_are_the_same(tmp_path):
    first, second = assignment(), assignment()
    log = tmp_path / "highs.log"
    assert solve_model(first, SolverSettings(seed=5), log_path=log) == solve_model(second, SolverSettings(seed=5))
    assert [v.value for v in first.take.values()] == [v.value for v in second.take.values()]
    assert "HiGHS" in log.read_text()


@pytest.fixture
def deaf(monkeypatch):
    """HiGHS that takes up no stop for a long time, as in the first linear program of a large model."""
    monkeypatch.setattr(highs, "GRACE_S", 0.05)
    monkeypatch.setattr(highs, "left_behind", [])
    hears = threading.Event()
    interrupt = highs._Run._interrupt

    def wait(self, event):
        hears.wait(60)
        interrupt(self, event)

    monkeypatch.setattr(highs._Run, "_interrupt", wait)
    yield
    hears.set()
    assert all(end.wait(60) for end in highs.left_behind)


@pytest.mark.usefixtures("deaf")
def test_a_run_that_does_not_hear_the_stop_is_left_behind():
    model = assignment()
    for i, j in model.take:
        model.take[i, j] = int(i == j)
    solution = solve_model(model, SolverSettings(stop=lambda: True), warm_start=True)
    assert highs.is_running() and not solution.optimal and not solution.infeasible


def knapsacks(items=60, rows=10):
    """Ten knapsacks at once, which presolve alone does not solve."""
    rng = random.Random(1)
    model = pyo.ConcreteModel()
    every = range(items)
    model.take = pyo.Var(every, domain=pyo.Binary)
    model.value = pyo.Objective(expr=sum(rng.randint(10, 99) * model.take[i] for i in every), sense=pyo.maximize)
    weights = [[rng.randint(10, 99) for _ in every] for _ in range(rows)]
    model.room = pyo.Constraint(
        range(rows), rule=lambda m, r: sum(weights[r][i] * m.take[i] for i in every) <= 20 * items
    )
    return model


@pytest.mark.usefixtures("deaf")
def test_ctrl_c_does_not_wait_for_the_solver(monkeypatch):
    """The signal comes to the thread that waits, and the solver ends by itself later."""
    main, work = threading.main_thread().ident, highs._Run._work

    def work_after_a_signal(self):
        threading.Timer(0.5, signal.pthread_kill, [main, signal.SIGINT]).start()
        work(self)

    monkeypatch.setattr(highs._Run, "_work", work_after_a_signal)
    with pytest.raises(KeyboardInterrupt):
        solve_model(knapsacks(), SolverSettings())
    assert highs.is_running()


def test_what_a_callback_raises_reaches_the_caller():
    def report(value, bound):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        solve_model(assignment(), SolverSettings(), progress=report)


def test_a_linear_program_is_stopped_too():
    """Simplex asks between its steps; without that, only the time limit would end it."""
    rng = random.Random(1)
    model = pyo.ConcreteModel()
    every = range(300)
    model.x = pyo.Var(every, bounds=(0, 1))
    model.value = pyo.Objective(expr=sum(rng.randint(10, 99) * model.x[i] for i in every), sense=pyo.maximize)
    model.rows = pyo.Constraint(range(200), rule=lambda m, _: sum(rng.randint(1, 9) * m.x[i] for i in every) <= 500)
    begun_s = time.monotonic()
    solution = solve_model(model, SolverSettings(stop=lambda: time.monotonic() > begun_s))
    assert solution.bound is None and not solution.optimal
