"""The end of a steady search: its last comparison, and what the chosen plan states."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from helix_kit.placement.watch import Watch
from helix_kit.search.archive import MAX_ELITES
from helix_kit.search.candidate import Candidate, Trial
from helix_kit.search.evaluate import Evaluator
from helix_kit.search.finals import (
    MAX_ROUNDS,
    MIN_ROUNDS,
    STATED_STREAMS,
    Decision,
    Finals,
    final_trial,
    nearest,
    score_over,
    stated_trials,
)
from helix_kit.search.front import pareto_front
from helix_kit.search.messages import Simulate, Task
from helix_kit.search.options import ServedOptions

STEPS = 2
"""Steps of local search in a round, and simulations of the last comparison at once."""
FINALISTS, SAFE_FINALISTS = 10, 5
"""Candidates of the last comparison at most, and how many of them are safe ones, each the best of its depth."""
FINAL_COST = 6.0
"""A run of the last comparison is taken to last this many times as long as one before, until the first is measured."""
FINAL_RUNS, FINAL_USE, MAX_FINAL_SHARE = 4, 0.9, 0.45
"""Runs for which the last comparison should have time, how much of its time they may use, and its largest share of the
time limit. Where that does not suffice the runs are shorter. Four plans are then compared on one stream: where runs are
dear, short ones mislead by more than streams differ."""
WARMUP_FACTOR = 2.0
"""Tokens of a run of the search, as a multiple of those in its window at most: its warm-up may be as long."""
STATED_SHARE, STATED_USE, MIN_STATED = 0.12, 0.85, 1.5
"""Share of the time limit for the runs whose mean the chosen plan states, how much of what is left they may use, and
their least tokens, as a multiple of those that the plan was compared on: shorter runs would say less."""


class Steady(Protocol):
    """A search whose runs start with full caches, see `helix_kit.search.phases.Search`."""

    evaluator: Evaluator
    watch: Watch
    options: ServedOptions
    trial: Trial
    safe: list[Candidate]
    simulation_s: float

    @property
    def is_steady(self) -> bool:
        """Whether it is such a search."""

    @property
    def jobs(self) -> int:
        """Simulations that run at once."""

    def run(self, tasks: Sequence[Task], stop: Callable[[], bool]) -> list[Candidate]:
        """The candidates of all tasks; fewer where it was stopped."""

    def must_end(self) -> bool:
        """Whether simulations that still run are given up."""

    def elites(self) -> list[Candidate]:
        """The candidates that local search starts from."""


def final_share(search: Steady, usual: float) -> float:
    """Share of the time limit for the last comparison: the `usual` one, or more where simulations take long."""
    needed_s = FINAL_RUNS * FINAL_COST * search.simulation_s / search.jobs
    return max(usual, min(MAX_FINAL_SHARE, needed_s / search.watch.time_limit_s))


def _most_tokens(search: Steady, best: Candidate, left_s: float) -> int | None:
    """Tokens of a run of the last comparison at most; None: no limit is needed. 0: there is no time for any."""
    if search.options.max_simulations is not None or not search.simulation_s or not best.measured.decode_steps:
        return None
    run_s = FINAL_USE * left_s * search.jobs / FINAL_RUNS
    if run_s >= FINAL_COST * search.simulation_s:
        return None
    searched = WARMUP_FACTOR * best.measured.decode_steps
    tokens = int(run_s / search.simulation_s * searched)
    return tokens if tokens >= MIN_STATED * searched else 0


def decide_steady(search: Steady, ranked: Sequence[Candidate]) -> Decision:
    """The finalists on longer runs, until one is surely best, the streams suffice or the time is over."""
    front, evaluator, watch = pareto_front(ranked), search.evaluator, search.watch
    undecided = Decision(front, [search.trial.seed])
    if search.must_end() or not ranked or not ranked[0].measured.window_s:
        return undecided
    finalists = _finalists(search, ranked, front)
    counted, reserved_s = search.options.max_simulations is not None, STATED_SHARE * watch.time_limit_s
    most_tokens = _most_tokens(search, ranked[0], watch.left_s - reserved_s)
    if most_tokens == 0:
        return undecided
    trial = replace(final_trial(search.trial), most_tokens=most_tokens)
    begin_s = FINAL_COST * search.simulation_s
    if most_tokens is not None:
        begin_s = min(begin_s, FINAL_USE * (watch.left_s - reserved_s) * search.jobs / FINAL_RUNS)
    taken = [begin_s]
    token_s = [0.0]

    def may_go_on(left: int) -> bool:
        turns = -(-left // search.jobs)
        return not search.must_end() and (counted or watch.left_s - reserved_s > turns * taken[-1])

    def simulate(candidates: Sequence[Candidate], fresh_trial: Trial) -> list[Candidate]:
        begun_s = watch.seconds
        results = search.run([Simulate(c, fresh_trial) for c in candidates], search.must_end)
        taken.append((watch.seconds - begun_s) / -(-len(candidates) // search.jobs))
        token_s.extend(taken[-1] / c.measured.decode_steps for c in results[:1] if c.measured.decode_steps)
        return results

    while len(finalists) > 2 and not may_go_on(len(finalists)):
        finalists.pop()
    finals = Finals(finalists, lambda c, score: evaluator.scored(c, score, trial).value, evaluator.requirements.limits)
    finals.compare(trial, simulate, may_go_on, MIN_ROUNDS if counted else MAX_ROUNDS)
    measured = [evaluator.scored(c, score, trial) for c, score in finals.measured()]
    return Decision(measured, finals.seeds, len(finals.left), token_s[-1]) if measured else undecided


def _finalists(search: Steady, ranked: Sequence[Candidate], front: Sequence[Candidate]) -> list[Candidate]:
    """The best candidates, the most valued first: those at the end are left out where the time is short.

    The plan must not be worse than the safe ones, and the short runs of the search may mislead by a few percent. So the
    best safe ones are among them, and the flow plan, which is the first of the safe ones, whatever its short run says.
    """

    def name(c: Candidate) -> str:
        return search.evaluator.identity(c.placement, c.shares)

    safe = {name(c) for c in search.safe}
    # Short runs mislead plans of one depth much alike: the best of each depth is compared.
    by_depth: dict[int, Candidate] = {}
    for c in ranked:
        if name(c) in safe:
            by_depth.setdefault(c.depth, c)
    best_safe = list(by_depth.values())[:SAFE_FINALISTS]
    within = nearest(ranked, search.evaluator.requirements.limits)
    order = [
        *within, *ranked[:1], *search.safe[:1], *best_safe[:2], *ranked[1:MAX_ELITES], *best_safe, *search.elites(),
        *front,
    ]  # fmt: skip
    return search.evaluator.first_of_each(order)[:FINALISTS]


def stated(search: Steady, chosen: Candidate, decision: Decision) -> tuple[Candidate, list[int]]:
    """The chosen candidate with its score over long runs on fresh streams, and their seeds.

    Where the time does not suffice for longer runs than it was compared on, its score stays as it is.
    """
    if not search.is_steady or search.must_end() or not decision.token_s:
        return chosen, decision.seeds
    most_tokens = None
    if search.options.max_simulations is None:
        turns = -(-STATED_STREAMS // search.jobs)
        most_tokens = int(STATED_USE * search.watch.left_s / turns / decision.token_s)
        if most_tokens < MIN_STATED * chosen.measured.decode_steps:
            return chosen, decision.seeds
    trials = stated_trials(final_trial(search.trial), decision.seeds, most_tokens)
    runs = search.run([Simulate(chosen, trial) for trial in trials], search.must_end)
    if len(runs) < len(trials):
        return chosen, decision.seeds
    score = score_over([run.measured for run in runs])
    return search.evaluator.scored(chosen, score, trials[0]), [trial.seed for trial in trials]
