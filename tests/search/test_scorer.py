"""Workers give the results of this process, end with their time, and are killed in the middle of their work."""

import time

import pytest

import helix_kit as hk
from helix_kit.placement import Problem
from helix_kit.search.candidate import Requirements, Trial
from helix_kit.search.evaluate import Evaluator, Exploration
from helix_kit.search.messages import Explore, Polish, Simulate
from helix_kit.search.scorer import Scorer


@pytest.fixture(scope="module")
def problem():
    return Problem.of(hk.Cluster.preset("single24"), hk.Model.preset("llama2-70b"))


def plan_of(problem, max_stages):
    return hk.plan(problem.cluster, problem.model, max_stages=max_stages).placement


def test_workers_answer_as_this_process_does(problem):
    trial = Trial(duration_s=10, warmup_s=10)
    here = Evaluator(problem, Requirements())
    candidates = [here.candidate(plan_of(problem, depth)) for depth in (10, 14)]
    steps = [Exploration(candidates[0].placement, seed, 1) for seed in (1, 2)]
    tasks = [*(Simulate(c, trial) for c in candidates), *(Explore(step, trial, frozenset()) for step in steps)]
    with Scorer(here, 2) as workers, Scorer(here, 1) as alone:
        found = [[(c.placement, c.score, c.value) for c in scorer.run(tasks)] for scorer in (workers, alone)]
    assert found[0] == found[1]
    assert len(found[0]) == 4


def test_polishing_ends_with_its_time_wherever_it_runs(problem):
    start = plan_of(problem, 12)
    evaluator = Evaluator(problem, Requirements(flow_split="any"))
    with Scorer(evaluator, 2) as workers, Scorer(evaluator, 1) as alone:
        for scorer in (workers, alone):
            none, some = (
                scorer.run([Polish(start, seed=1, rounds=2, deadline_s=time.monotonic() + s)]) for s in (0.0, 60.0)
            )
            assert [c.placement for c in none] == [start]
            assert some[0].predicted_value > none[0].predicted_value
        stopped = alone.run([Polish(start, seed=1, rounds=2, deadline_s=time.monotonic() + 60)], lambda: True)
        assert [c.placement for c in stopped] == [start]


def test_stop_does_not_wait_for_workers(problem):
    """Told to stop, workers end in the middle of a simulation; later tasks return nothing."""
    evaluator = Evaluator(problem, Requirements())
    candidate = evaluator.candidate(plan_of(problem, 12))
    with Scorer(evaluator, 2) as scorer:
        assert len(scorer.run([Simulate(candidate, Trial(duration_s=1.0))])) == 1
        assert scorer.run([Simulate(candidate, Trial(duration_s=3600.0))] * 3, lambda: True) == []
        assert scorer.run([Simulate(candidate, Trial(duration_s=1.0))]) == []


def test_ctrl_c_does_not_wait_for_workers(problem):
    """The simulations take an hour: the interrupt is passed on at once, and the workers are dead."""
    evaluator = Evaluator(problem, Requirements())
    candidate = evaluator.candidate(plan_of(problem, 12))

    def press() -> bool:
        raise KeyboardInterrupt

    with Scorer(evaluator, 2) as scorer:
        with pytest.raises(KeyboardInterrupt):
            scorer.run([Simulate(candidate, Trial(duration_s=1e6))] * 2, press)
        assert scorer.run([Simulate(candidate, Trial(duration_s=1.0))]) == []
