"""The phases of a search: screening of proposed placements, local search, and a last comparison."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from helix_kit.errors import InfeasibleError
from helix_kit.flow import Placement
from helix_kit.placement.watch import Watch
from helix_kit.search.archive import MAX_ELITES, Archive
from helix_kit.search.candidate import Candidate, Trial, by_prediction, distinct, is_whole, mean_score
from helix_kit.search.capacity_shares import effective_shares, first_shares
from helix_kit.search.correction import Correction, fitted
from helix_kit.search.evaluate import NEIGHBOURS, Exploration
from helix_kit.search.finals import Decision, nearest
from helix_kit.search.front import pareto_front
from helix_kit.search.messages import Explore, Polish, Simulate, Task
from helix_kit.search.options import ServedOptions
from helix_kit.search.pool import SAFE, SIDE_BY_SIDE, problem_without, propose
from helix_kit.search.scorer import Scorer
from helix_kit.search.stage_program import Solving
from helix_kit.search.steady_finals import FINALISTS, STATED_SHARE, STEPS, decide_steady, final_share

POOL_SHARE = 0.15
"""Share of the time limit for proposing placements."""
WINDOW_S, MIN_WINDOW_S, ENOUGH_TOKENS_PER_S = 600.0, 200.0, 1000.0
"""Simulated seconds that plans are compared over: 600, and fewer (at least 200) where more than 1000 tokens/s are
expected. Shorter windows mislead, since requests stay for minutes: in the first of them prompts fill the KV caches, and
other plans serve most then than over ten minutes (on hetero42 one plan served 353 and 964 tokens/s, another 759 and
684)."""
POLISHED, POLISH_ROUNDS, POLISH_SHARE = 8, 120, 0.25
"""With the flow split "any": placements that are improved by the predictor alone, rounds of thirty neighbours for each,
and the largest share of the time limit that this takes."""
SCREENED = 24
"""Candidates that screening simulates at most, where runs start with empty caches."""
MIN_PREDICTED_SHARE = 0.6
"""Candidates with a smaller share of the best predicted value are not among the first to be simulated."""
BEST_OF_FAMILY = 2
"""Candidates of each family of shapes that are simulated first."""


class StepSize(NamedTuple):
    """How much a step of local search does."""

    picks: int
    """Neighbours that are simulated. It does not depend on `jobs`, so that the number of worker processes changes no
    result; nor does STEPS, the steps in a round."""
    neighbours: int
    """Neighbours that are predicted in a round."""
    rounds: int
    """Rounds of predictions."""


STEP, STEADY_STEP = StepSize(2, NEIGHBOURS, 4), StepSize(3, 10, 2)
"""The step, and that of runs which start with full caches: a simulation then takes about as long as ten predictions."""
PROBES_S, PROBE_SHARE = (2.0, 5.0, 10.0, 20.0, 40.0), 0.03
"""Simulated seconds of the runs that measure what a simulation costs, and the share of the time limit that is long
enough for such a run: a longer one is then left out."""
MIN_SIMULATIONS = 16
"""Simulations that the time should suffice for: windows are cut down where it does not."""
MAX_GROWTH = 4.0
"""Windows may be this many times as long as MIN_SIMULATIONS allow, where requests stay long: then fewer are made."""
MIN_STAYS, WARMUP_STAYS, SHORTEST_WINDOW_S = 3.0, 1.5, 20.0
"""The shortest window and warm-up, in mean stays of a request (from its start to its last token), and the simulated
seconds that no window falls below."""
STEADY_STEPS = 8
"""Simulations that screening makes at once where runs start with full caches."""
REQUESTS = 300
"""Requests in the window of a run that starts with full caches."""
SAFE_SHARE = 0.6
"""Share of the time limit in which the placements are simulated that the plan must not be worse than."""
IDLE_ROUNDS = 25
"""Rounds in a row without a new placement after which local search ends."""
FINAL_SEEDS = 2
"""Request streams of the last comparison. The search itself uses none of them: a plan may have been chosen because the
search's own stream happens to suit it."""

COUNTED_JOBS = 2
"""Simulations that run at once where work is counted in place of seconds."""
TASK_S: dict[type[Task], float] = {Simulate: 0.05, Explore: 0.15, Polish: 9.0}
"""Seconds that a task counts there, about as on a usual machine, without its simulated tokens."""
TOKEN_S = {"range": 6e-6, "layerwise": 4e-5}
"""Seconds that a simulated token counts there, by the simulator's `execution`."""


class Search:
    """A search in progress: the archive of simulated candidates, and the phases that fill it."""

    def __init__(self, scorer: Scorer, watch: Watch, options: ServedOptions, trial: Trial, solver: str) -> None:
        self.scorer, self.watch, self.options, self.trial, self.solver = scorer, watch, options, trial, solver
        self.evaluator = scorer.evaluator
        self.archive = Archive(self.evaluator)
        self.max_simulations: float = options.max_simulations or np.inf
        self.simulations = 0
        self.rng = np.random.default_rng(trial.seed)
        self.simulation_s = 0.0
        """Seconds that simulating a candidate takes at the moment, of a worker's time."""
        self.safe: list[Candidate] = []
        """Candidates that the plan must not be worse than."""
        self.most_flow_tokens_per_s = 0.0
        """The greatest flow of a plan that was simulated."""
        self.history: list[tuple[float, float]] = []
        """[seconds, decode tokens/s of the best plan] whenever the best plan changed."""

    @property
    def is_steady(self) -> bool:
        """Whether runs start with full caches and are counted in requests, which makes them short."""
        return self.trial.requests is not None

    @property
    def has_own_windows(self) -> bool:
        """Whether the lengths of runs are known beforehand, so that no run has to measure what seconds cost."""
        return self.is_steady

    def progress_of(self, best: Candidate) -> tuple[float, str]:
        """What the best plan so far serves: the figure for the history, and the words of a progress report."""
        served = best.measured.decode_tokens_per_s
        return served, f"{served:.1f} tokens/s served"

    def keep(self, simulated: Sequence[Candidate]) -> None:
        """Put simulated candidates into the archive, and report the best."""
        self.simulations += len(simulated)
        self.archive.add(simulated)
        self.most_flow_tokens_per_s = max([self.most_flow_tokens_per_s, *(c.flow.tokens_per_s for c in simulated)])
        if not len(self.archive):
            return
        first = self.ranked()[0]
        best, words = self.progress_of(first)
        if not self.history or self.history[-1][1] != best:
            self.history.append((self.watch.seconds, best))
            self.watch.show(first.placement)
        # The values of progress reports are flows: what is served goes into the message.
        self.watch.report(message=f"{words} ({self.simulations} simulated)")

    def ranked(self) -> list[Candidate]:
        """The archive's candidates, the largest value first."""
        return self.archive.ranked(self.trial.whole_s)

    def elites(self) -> list[Candidate]:
        """The candidates that local search starts from."""
        return self.archive.elites(self.trial.whole_s)

    def correction(self) -> Correction:
        """What the simulations so far say of the predictions."""
        # A steady run that ended early was stopped where its mean was known to be low, which is worth knowing.
        known = self.archive.candidates
        return fitted(
            self.evaluator.predictor,
            [c for c in known if c.score is not None and (self.is_steady or is_whole(c.score, self.trial.whole_s))],
        )

    def race(self) -> Trial:
        """The trial in which a plan that is far behind the best ends early; offline only."""
        if self.options.mode == "online":
            return self.trial
        if self.is_steady:
            return replace(self.trial, floor_tokens_per_s=self.archive.floor_tokens_per_s())
        return replace(self.trial, at_least=self.archive.race_limits(self.trial.duration_s))

    def must_end(self) -> bool:
        """Whether simulations that still run are given up: the user asked to stop, or the time limit has come.

        Where work is counted a simulation that has begun ends, since how often this is asked depends on the machine.
        """
        return self.watch.stopped() if self.watch.is_counted else self.watch.is_over()

    def run(self, tasks: Sequence[Task], stop: Callable[[], bool]) -> list[Candidate]:
        """The candidates of all tasks. Where the watch counts work, their work is counted."""
        candidates = self.scorer.run(tasks, stop)
        if self.watch.is_counted:
            tokens = sum(c.score.prompts + c.score.decode_steps for c in candidates if c.score is not None)
            work_s = sum(TASK_S[type(task)] for task in tasks) + tokens * TOKEN_S[self.trial.execution]
            self.watch.spend(work_s / self.jobs)
        return candidates

    @property
    def jobs(self) -> int:
        """Simulations that run at once. Where work is counted it does not depend on the number of workers."""
        return COUNTED_JOBS if self.watch.is_counted else self.scorer.jobs

    def is_over(self, until_s: float, simulations: int = 0) -> bool:
        """Whether too little time is left for `simulations` in turn, or all simulations have been made."""
        needed_s = simulations * self.simulation_s
        return (
            self.watch.seconds + needed_s >= until_s or self.watch.stopped() or self.simulations >= self.max_simulations
        )

    def screen(self, known: Sequence[Placement], until_s: float) -> None:
        """Propose placements, and simulate those with the best predictions and some of every shape and depth."""
        families = self._proposed(known)
        self.safe = families.get(SAFE, [])
        order, others = self._screening_order(families)
        started = self._started()
        self.safe, order = [*self.safe[:1], *started, *self.safe[1:]], [*started, *order]
        if self.evaluator.requirements.flow_split == "any":
            # With a limit on simulations the clock must not decide how far polishing comes.
            share = POLISH_SHARE if self.options.max_simulations is None else 1.0
            polish_s = share * self.watch.time_limit_s
            order = [*self._polished(distinct(order), self.watch.seconds + polish_s), *order]
            until_s += polish_s
        if self.options.window_s is None and not self.has_own_windows:
            expected = max(c.predicted_value for c in order)
            window_s = max(MIN_WINDOW_S, WINDOW_S * min(1.0, ENOUGH_TOKENS_PER_S / expected))
            self.trial = replace(self.trial, duration_s=float(round(window_s)))
        order = distinct([*order, *others])
        steps, screened = STEPS, SCREENED
        if self.has_own_windows:
            order = distinct([*by_prediction(self.safe), *order])
            steps, screened = STEADY_STEPS if self.is_steady else STEPS, len(order)
        elif self.options.max_simulations is None:
            self._plan_windows(order[0])
        for start in range(0, min(screened, len(order)), steps):
            # The placements that the plan must not be worse than have time until the last comparison.
            end_s = until_s
            if start < len(self.safe) and self.has_own_windows:
                left = 1 - STATED_SHARE - final_share(self, 0.0) if self.is_steady else 1.0
                end_s = self.watch.time_limit_s * min(SAFE_SHARE, left)
            if start and self.is_over(end_s, simulations=1):
                break
            count = int(min(steps, self.max_simulations - self.simulations))
            self.keep(self._simulate(order[start : start + count], self.race()))
        if not len(self.archive):
            # The time was over before a simulation was: the search still has to return a plan.
            self.archive.add([self.evaluator.predicted(order[0])])

    def _plan_windows(self, candidate: Candidate) -> None:
        """Measure what a simulation costs, and shorten the windows where the time does not suffice for enough of them.

        The first run of a worker loads the simulator; a later one is measured.
        """
        cost = 0.0
        for count, probe_s in enumerate(PROBES_S):
            probe = replace(self.trial, warmup_s=0.0, duration_s=probe_s)
            begun_s = self.watch.seconds
            if not self.run([Simulate(candidate, probe)] * self.jobs, self.must_end):
                return
            took_s = self.watch.seconds - begun_s
            cost = took_s / probe_s
            if count and took_s > PROBE_SHARE * self.watch.time_limit_s:
                break
        trial = self.trial
        affordable_s = self.watch.left_s * self.jobs / MIN_SIMULATIONS / cost
        if self.options.window_s is None and trial.warmup_s + trial.duration_s > affordable_s:
            expected = self.evaluator.predicted(candidate).measured
            output_tokens = self.evaluator.predictor.lengths.output_tokens
            stay_s = expected.prompt_latency_s + output_tokens * expected.decode_latency_s
            warmup_s = min(trial.warmup_s, WARMUP_STAYS * stay_s, affordable_s)
            shortest_s = min(max(SHORTEST_WINDOW_S, MIN_STAYS * stay_s), MAX_GROWTH * affordable_s - warmup_s)
            duration_s = min(trial.duration_s, max(shortest_s, affordable_s - warmup_s))
            self.trial = replace(trial, warmup_s=float(round(warmup_s)), duration_s=float(round(duration_s)))
        self.simulation_s = cost * (self.trial.warmup_s + self.trial.duration_s)

    def _proposed(self, known: Sequence[Placement]) -> dict[str, list[Candidate]]:
        """Candidates by family, each identity once; raises InfeasibleError when there are none."""
        evaluator, problem = self.evaluator, self.evaluator.problem
        pins = evaluator.requirements.pins
        solving = Solving(
            self.solver,
            self.trial.seed,
            self.watch.for_part(self.watch.time_limit_s * POOL_SHARE),
        )
        guess = {}
        if evaluator.may_share:
            guess = first_shares(evaluator.predictor.decode_s, evaluator.predictor.prefill_s)
        seen: set[str] = set()
        families: dict[str, list[Candidate]] = {}
        for family, placement in propose(problem_without(problem, pins), evaluator, known, solving):
            pinned = {**placement, **pins}
            shares = effective_shares(problem, pinned, guess) if family in SIDE_BY_SIDE else {}
            if families and solving.watch.is_over():
                break
            for tried in ({}, shares) if shares else ({},):
                name = evaluator.identity(pinned, tried)
                candidate = None if name in seen else evaluator.candidate(pinned, tried)
                if candidate is not None:
                    seen.add(name)
                    families.setdefault(f"{family}, shares" if tried else family, []).append(candidate)
        if not families:
            raise InfeasibleError(
                f"no placement of {problem.model.name} on cluster {problem.cluster.name} "
                "carries any flow under these pins and this depth cap",
                fix="drop a pin, or allow more stages",
            )
        return families

    def _started(self) -> list[Candidate]:
        """The plan that the search was told to start from, with its capacity shares; none where there is none."""
        start = self.options.start
        if start is None:
            return []
        shares = start.served.ease if start.served is not None and self.evaluator.may_share else {}
        placement = {**start.placement, **self.evaluator.requirements.pins}
        found = self.evaluator.candidate(placement, effective_shares(self.evaluator.problem, placement, shares))
        return [] if found is None else [found]

    def _screening_order(self, families: dict[str, list[Candidate]]) -> tuple[list[Candidate], list[Candidate]]:
        """(candidates to simulate first, all candidates), the best predicted first in each.

        The predictor ranks well within a family of shapes and less well between families. So the best of each family
        and of each depth go first, unless their predictions are far below the best.
        """
        ranked = by_prediction([c for family in families.values() for c in family])
        best_of_families = [c for family in families.values() for c in by_prediction(family)[:BEST_OF_FAMILY]]
        best_by_depth = {c.depth: c for c in reversed(ranked)}
        order = [*by_prediction(best_of_families), *by_prediction(list(best_by_depth.values()))]
        return [c for c in order if c.predicted_value >= ranked[0].predicted_value * MIN_PREDICTED_SHARE], ranked

    def _simulate(self, candidates: Sequence[Candidate], trial: Trial) -> list[Candidate]:
        """The candidates with their scores; fewer where the time limit came first."""
        begun_s = self.watch.seconds
        simulated = self.run([Simulate(c, trial) for c in candidates], self.must_end)
        if any(is_whole(c.measured, trial.whole_s) for c in simulated):
            turns = -(-len(candidates) // self.jobs)
            self.simulation_s = max((self.watch.seconds - begun_s) / turns, 0.8 * self.simulation_s)
        return simulated

    def _polished(self, starts: Sequence[Candidate], until_s: float) -> list[Candidate]:
        """Candidates that polishing makes of the first few of `starts`, the best predicted first."""
        polished: list[Candidate] = []
        parents = [c.placement for c in starts[:POLISHED]]
        for at in range(0, len(parents), STEPS):
            if not self.is_over(until_s):
                left_s = math.inf if self.watch.is_counted else until_s - self.watch.seconds
                deadline_s = time.monotonic() + left_s
                seed = self.trial.seed + at
                tasks = [Polish(parent, seed, POLISH_ROUNDS, deadline_s) for parent in parents[at : at + STEPS]]
                polished += self.run(tasks, self.watch.stopped)
        return by_prediction(polished)

    def improve(self, until_s: float) -> None:
        """Local search from the elites, the better ones more often; the simulator decides what is kept."""
        idle_rounds = 0
        picks, count, rounds = STEADY_STEP if self.has_own_windows else STEP
        while not self.is_over(until_s, simulations=picks) and idle_rounds < IDLE_ROUNDS:
            elites = self.elites()
            weights = np.array([1 / (rank + 1) for rank in range(len(elites))])
            parents = self.rng.choice(len(elites), STEPS, p=weights / weights.sum())
            seeds = self.rng.integers(2**31, size=STEPS)
            correction = self.correction()
            left = self.max_simulations - self.simulations
            steps = [
                Exploration(elites[p].placement, int(seed), int(min(picks, left - i * picks)), elites[p].shares, count,
                            rounds, correction)
                for i, (p, seed) in enumerate(zip(parents, seeds, strict=True))
                if left > i * picks
            ]  # fmt: skip
            trial, known = self.race(), set(self.archive.identities)
            simulated = self.run([Explore(step, trial, known) for step in steps], self.must_end)
            idle_rounds = 0 if simulated else idle_rounds + 1
            if simulated:
                self.keep(simulated)

    def decide(self) -> Decision:
        """Compare the best candidates and those of the front on request streams that the search has not used.

        These simulations come on top of `max_simulations`. Without time, or with one finalist, the scores of the search
        are returned as they are.
        """
        ranked = self.ranked()
        if self.is_steady:
            return decide_steady(self, ranked)
        front = pareto_front(ranked)
        undecided = Decision(front, [self.trial.seed])
        within = nearest(ranked, self.evaluator.requirements.limits)
        finalists = distinct([*within, *ranked[: MAX_ELITES // 2], *self.elites(), *front])[:FINALISTS]
        trials = [replace(self.trial, seed=self.trial.seed + 1 + i) for i in range(FINAL_SEEDS)]
        needed_s = FINAL_SEEDS * self.simulation_s
        if self.must_end() or len(finalists) < 2 or self.watch.left_s < needed_s:
            return undecided
        measured: list[Candidate] = []
        for start in range(0, len(finalists), STEPS):
            if start and self.watch.left_s < FINAL_SEEDS * self.simulation_s:
                break
            some = finalists[start : start + STEPS]
            runs = [self._simulate(some, trial) for trial in trials]
            if any(len(run) < len(some) for run in runs):
                break
            for candidate, *same in zip(some, *runs, strict=True):
                score = mean_score([run.measured for run in same])
                measured.append(self.evaluator.scored(candidate, score, self.trial))
        return Decision(measured, [trial.seed for trial in trials]) if measured else undecided
