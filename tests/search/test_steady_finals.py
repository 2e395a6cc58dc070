"""The end of a steady search: who is compared, what runs may cost, and what the chosen plan states."""

from dataclasses import replace

import pytest

import helix_kit as hk
from helix_kit.flow import Flow
from helix_kit.placement import Problem
from helix_kit.placement.watch import Watch
from helix_kit.search.candidate import Candidate, Requirements, Trial
from helix_kit.search.evaluate import Evaluator
from helix_kit.search.finals import MIN_ROUNDS
from helix_kit.search.options import ServedOptions
from helix_kit.search.phases import Search
from helix_kit.search.steady_finals import FINAL_RUNS, MAX_FINAL_SHARE, STATED_SHARE, decide_steady, final_share, stated
from helix_kit.simulator.scoring import Score

TOKENS = 10_000
"""Tokens in the window of a run of the search; those of the last comparison have six times as many with warm-up."""


class Served:
    """A scorer on a counted clock: plans serve what `truth` says, and each token takes `token_s`."""

    jobs = 2

    def __init__(self, evaluator, watch, truth, token_s):
        self.evaluator, self.watch, self.truth, self.token_s = evaluator, watch, truth, token_s
        self.asked = []

    def run(self, tasks, stop):
        results = []
        for task in tasks:
            whole = 12 * TOKENS if task.trial.lives > 0.3 else 2 * TOKENS
            tokens = min(whole, task.trial.most_tokens or whole)
            self.watch.seconds += tokens * self.token_s / self.jobs
            self.asked.append((task.candidate, task.trial, self.watch.seconds))
            value = self.truth[task.candidate.placement["L4-0"]] + 0.1 * task.trial.seed
            score = Score(decode_tokens_per_s=value, decode_steps=tokens / 2, window_s=1.0, half_width_tokens_per_s=0.3)
            results.append(replace(task.candidate, score=score, value=value))
        return results


class Clock(Watch):
    """Seconds that only the scorer spends."""

    seconds = 0.0


def searching(truth, token_s, at_s, **options):
    """A search that has simulated a plan for each value of `truth`, with 100 s of which `at_s` are over."""
    problem = Problem.of(
        hk.Cluster.model_validate({"name": "six", "nodes": [{"gpu": "L4", "count": 6}]}), hk.Model.preset("llama-30b")
    )
    evaluator, watch = Evaluator(problem, Requirements()), Clock(100.0)
    scorer = Served(evaluator, watch, truth, token_s)
    search = Search(scorer, watch, ServedOptions(**options), Trial(requests=30), "highs")
    plans = [Candidate({"L4-0": span}, Flow(1.0, {}, {}, ()), 1.0) for span in truth]
    search.keep(scorer.run([Simulated(c, search.trial) for c in plans], None))
    search.simulation_s = 2 * TOKENS * token_s
    watch.seconds = at_s
    scorer.asked.clear()
    return search, plans


class Simulated:
    """A task of the scorer above."""

    def __init__(self, candidate, trial):
        self.candidate, self.trial = candidate, trial


TRUTH = {(0, n): 100.0 - 5 * n for n in range(1, 13)}


def test_the_flow_plan_is_compared_whatever_its_short_run_says():
    search, plans = searching(TRUTH, 1e-6, 60.0)
    search.safe = [plans[-1], plans[3]]
    decide_steady(search, search.ranked())
    asked = [c.placement for c, _, _ in search.scorer.asked]
    assert plans[-1].placement in asked
    assert plans[3].placement in asked
    assert asked[0] == plans[0].placement, "the best comes first"
    assert asked.count(plans[0].placement) == MIN_ROUNDS
    assert len({repr(p) for p in asked[:5]}) == 5, "each is asked once a stream"


def test_runs_are_cut_down_so_that_four_are_made_in_the_time():
    """A whole run would take 48 s of a worker; there are 60 s on two workers, with a share of them set aside."""
    search, _ = searching(dict.fromkeys(TRUTH, 50.0), 4e-4, 40.0)
    decision = decide_steady(search, search.ranked())
    assert decision.seeds != [search.trial.seed]
    assert len(search.scorer.asked) == FINAL_RUNS
    assert all(trial.most_tokens < 12 * TOKENS for _, trial, _ in search.scorer.asked)
    assert search.watch.seconds <= 100.0 * (1 - STATED_SHARE) + 1
    cheap, _ = searching(TRUTH, 1e-6, 40.0)
    decide_steady(cheap, cheap.ranked())
    assert {trial.most_tokens for _, trial, _ in cheap.scorer.asked} == {None}


def test_without_time_for_longer_runs_the_search_itself_decides():
    search, _ = searching(TRUTH, 4e-4, 85.0)
    assert decide_steady(search, search.ranked()).seeds == [search.trial.seed]
    assert not search.scorer.asked


def test_dear_simulations_get_a_larger_share_for_the_last_comparison():
    shares = [final_share(searching(TRUTH, token_s, 20.0)[0], 0.2) for token_s in (1e-6, 1.5e-4, 1e-2)]
    assert shares[0] == 0.2
    assert 0.2 < shares[1] < shares[2] == MAX_FINAL_SHARE


def test_the_plan_states_what_it_serves_on_fresh_streams():
    search, _ = searching(TRUTH, 1e-5, 60.0)
    decision = decide_steady(search, search.ranked())
    chosen = decision.measured[0]
    search.scorer.asked.clear()
    result, seeds = stated(search, chosen, decision)
    assert not set(seeds) & set(decision.seeds)
    assert search.trial.seed not in seeds
    assert result.placement == chosen.placement
    assert result.measured.decode_tokens_per_s == pytest.approx(95.0 + 0.1 * sum(seeds) / 2)
    assert result.measured.half_width_tokens_per_s == pytest.approx(0.3 / 2**0.5)
    assert {c.placement["L4-0"] for c, _, _ in search.scorer.asked} == {(0, 1)}
    assert search.watch.seconds < 100.0
    search.watch.seconds = 99.9
    assert stated(search, chosen, decision) == (chosen, decision.seeds), "no time is left"
