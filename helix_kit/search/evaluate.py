"""What is done with one candidate: flow and prediction, simulation, and a step of local search from it.

Every function here depends on its arguments alone, so that a worker process gives the same result as this one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from helix_kit.flow import Flow, Placement
from helix_kit.placement.problem import Problem
from helix_kit.search.candidate import Candidate, Requirements, Trial, by_prediction, value_of
from helix_kit.search.capacity_shares import CapacityShares, effective_shares, flow_with_shares, vary_share
from helix_kit.search.correction import Correction, corrected
from helix_kit.search.goodput import goodput_score, predicted_goodput
from helix_kit.search.moves import MOVES, MOVES_ALIKE, key_of, neighbours
from helix_kit.search.predictor import Predictor, lengths_of
from helix_kit.simulator.scoring import Score, score
from helix_kit.simulator.steady import Window, steady_score
from helix_kit.workload import Workload
from helix_kit.workload.lengths import LengthPairs

NEIGHBOURS = 30
"""Neighbours of a placement that one step of local search predicts, where a simulation takes long."""
POLISH_WIDTH = 4
"""Placements that polishing keeps from round to round."""
PREDICTION_SLACK = 1.15
"""Latency limits are this much wider for predictions: hetero42's prompt latencies are predicted a tenth too long."""
SHARE_CHANGES = 0.25
"""Fraction of the neighbours that differ in their capacity shares."""
RANDOM_PICKS, RANDOM_RANKS = 0.3, 30
"""Fraction of the steps that simulate one candidate the predictor ranks low, since the predictor has errors, and how
many of the best such a one is drawn from."""


def never() -> bool:
    """The stop of work that always runs to its end."""
    return False


@dataclass(frozen=True)
class Exploration:
    """One step of local search: from which placement, with which seed, and how many neighbours it simulates."""

    parent: Placement
    seed: int
    picks: int
    shares: CapacityShares = field(default_factory=dict)
    """Capacity shares of the parent."""
    neighbours: int = NEIGHBOURS
    """Neighbours that are predicted; twice as many where the flow split is any."""
    rounds: int = 1
    """Rounds of so many neighbours: later ones vary what looks best so far, and only the best of all are simulated."""
    correction: Correction = ()
    """Of the predictions."""


class Evaluator:
    """Makes, simulates and varies candidates of one problem that keep to given requirements."""

    def __init__(self, problem: Problem, requirements: Requirements) -> None:
        self.problem, self.requirements = problem, requirements
        self.predictor = Predictor(problem, lengths_of(requirements.lengths) if requirements.lengths else None)

    @property
    def may_share(self) -> bool:
        """Whether flows may use less than all capacity.

        That needs machines of several kinds and a balanced split: the split "any" is the maximum flow as found.
        """
        return self.requirements.flow_split == "balanced" and len(set(self.problem.kind_of.values())) > 1

    def shape(self, placement: Placement) -> list[Any]:
        """A value that is equal for placements which differ only in the order of equal machines."""
        kinds, region = self.problem.kind_of, self.problem.cluster.region_of
        return sorted((kinds[n], region(n), span) for n, span in placement.items())

    def identity(self, placement: Placement, shares: CapacityShares | None = None) -> str:
        """A key that is equal for placements which serve the same: those of one shape.

        With the flow split "any" the order of equal machines decides which of them are idle. There every placement has
        a key of its own.
        """
        rows = list(key_of(placement)) if self.requirements.flow_split == "any" else self.shape(placement)
        rows += sorted((shares or {}).items())
        return hashlib.sha256(repr(rows).encode()).hexdigest()[:16]

    def first_of_each(self, candidates: Iterable[Candidate]) -> list[Candidate]:
        """The candidates in their order, each identity once."""
        found: dict[str, Candidate] = {}
        for c in candidates:
            found.setdefault(self.identity(c.placement, c.shares), c)
        return list(found.values())

    def candidate(self, placement: Placement, shares: CapacityShares | None = None) -> Candidate | None:
        """The placement with flow and prediction; None when it carries no flow or breaks a requirement."""
        required = self.requirements
        if any(placement.get(n) != span for n, span in required.pins.items()):
            return None
        if required.flow_split == "any":
            flow = self.problem.max_flow(placement, partial_inference=required.partial_inference)
        else:
            flow = flow_with_shares(self.problem, placement, shares or {}, partial_inference=required.partial_inference)
        if flow.tokens_per_s <= 0:
            return None
        if required.slo is not None:
            value = predicted_goodput(self.predictor, placement, flow, required.slo, required.rate_per_s)
        else:
            expected = self.predictor(placement, flow, required.rate_per_s)
            limits = required.limits.widened(PREDICTION_SLACK)
            value = value_of(expected, limits, online=required.rate_per_s is not None)
        candidate = Candidate(placement, flow, value, shares=shares or {})
        return candidate if required.max_stages is None or candidate.depth <= required.max_stages else None

    def ranked(self, candidates: Sequence[Candidate], correction: Correction) -> list[Candidate]:
        """The candidates with the largest corrected prediction first; ties are ordered by placement."""
        values = {id(c): value for c, value in zip(candidates, corrected(self.predictor, candidates, correction))}
        return sorted(candidates, key=lambda c: (-values[id(c)], key_of(c.placement)))

    def simulate(self, candidate: Candidate, trial: Trial) -> Candidate:
        """The candidate with its score and value."""
        return self.scored(candidate, simulated(self.problem, candidate, trial, self.requirements.lengths), trial)

    def predicted(self, candidate: Candidate) -> Candidate:
        """The candidate with what the predictor expects in place of a score; its window is 0 s."""
        expected = self.predictor(candidate.placement, candidate.flow, self.requirements.rate_per_s)
        score = Score(
            decode_tokens_per_s=expected.decode_tokens_per_s,
            prompt_latency_s=expected.prompt_latency_s,
            decode_latency_s=expected.decode_latency_s,
            share_of_window=0.0,
        )
        return replace(candidate, score=score, value=candidate.predicted_value)

    def scored(self, candidate: Candidate, measured: Score, trial: Trial) -> Candidate:
        """The candidate with a score that was measured, and the value that follows from it."""
        value = measured.goodput_value
        if trial.slo is None:
            value = value_of(measured, self.requirements.limits, online=trial.mode == "online")
        return replace(candidate, score=measured, value=value)

    def explore(
        self, step: Exploration, trial: Trial, known: Collection[str], stop: Callable[[], bool] = never
    ) -> list[Candidate]:
        """One step of local search: neighbours are predicted, and those predicted best are simulated.

        `known` are identities that have been simulated before.
        """
        rng = np.random.default_rng(step.seed)
        fresh: dict[str, Candidate] = {}
        origin = Candidate(step.parent, Flow(0.0, {}, {}, ()), 0.0, shares=dict(step.shares))
        for _ in range(step.rounds):
            for candidate in self._varied(origin, step.neighbours, rng, {*known, *fresh}):
                if stop():
                    break
                fresh[self.identity(candidate.placement, candidate.shares)] = candidate
            ranked = self.ranked(list(fresh.values()), step.correction)
            # The next round goes on from the parent or from one of those that look best.
            others = ranked[:POLISH_WIDTH]
            at = int(rng.integers(len(others) + 1))
            if at < len(others):
                origin = others[at]
        chosen = ranked[: step.picks]
        if len(ranked) > step.picks and rng.random() < RANDOM_PICKS:
            chosen[-1] = ranked[int(rng.integers(step.picks, min(len(ranked), max(RANDOM_RANKS, step.picks + 1))))]
        return [self.simulate(c, trial) for c in chosen if not stop()]

    def _varied(
        self, origin: Candidate, neighbours_wanted: int, rng: np.random.Generator, known: set[str]
    ) -> Iterator[Candidate]:
        """Candidates a move or two away from `origin`, in placement or capacity shares, that are not `known`."""
        any_split = self.requirements.flow_split == "any"
        moves, count = (MOVES_ALIKE, 2 * neighbours_wanted) if any_split else (MOVES, neighbours_wanted)
        for neighbour in neighbours(self.problem, origin.placement, rng, count, moves):
            placement, shares = neighbour, dict(origin.shares)
            if self.may_share and rng.random() < SHARE_CHANGES:
                shares = vary_share(self.problem, origin.placement, shares, rng)
                placement = origin.placement if rng.random() < 0.5 else neighbour
            shares = effective_shares(self.problem, placement, shares)
            name = self.identity(placement, shares)
            candidate = None if name in known else self.candidate(placement, shares)
            if candidate is not None:
                known.add(name)
                yield candidate

    def polish(
        self, parent: Placement, *, seed: int, rounds: int, should_stop: Callable[[], bool] = never
    ) -> list[Candidate]:
        """The two placements predicted best that local search from `parent` finds without a simulation.

        It is meant for the flow split "any": there the order of equal machines decides how evenly the flow loads them,
        and a thousand orders are predicted in the time of a few simulations. `should_stop` is asked each round.
        """
        rng = np.random.default_rng(seed)
        start = self.candidate(parent)
        best = [start] if start else []
        for _ in range(rounds if best else 0):
            if should_stop():
                break
            origin = best[int(rng.integers(len(best)))].placement
            found = (self.candidate(p) for p in neighbours(self.problem, origin, rng, NEIGHBOURS, MOVES_ALIKE))
            # One candidate is kept for each predicted value: equal values are mostly the same plan in another order.
            by_value = {round(c.predicted_value, 6): c for c in (*(c for c in found if c is not None), *best)}
            best = by_prediction(list(by_value.values()))[:POLISH_WIDTH]
        return best[:2]


def simulated(problem: Problem, candidate: Candidate, trial: Trial, lengths: LengthPairs = ()) -> Score:
    """The score of one placement whose requests follow its flow, simulated in this process."""
    if trial.slo is not None:
        return goodput_score(problem, candidate, trial, lengths)
    if trial.requests is not None:
        window = Window(trial.requests, trial.warmup_lives, trial.lives, trial.most_tokens)
        return steady_score(
            (problem, candidate.placement, candidate.flow),
            lengths,
            window=window,
            seed=trial.seed,
            at_least=trial.floor_tokens_per_s,
        )
    workload = None
    if trial.mode == "online":
        until_s = trial.warmup_s + trial.duration_s
        workload = Workload.azure_conversation(
            rate_per_s=trial.rate_per_s or 1.0, duration_s=until_s, seed=trial.seed, like=lengths or None
        )
    return score(
        (problem, candidate.placement, candidate.flow),
        workload,
        mode=trial.mode,
        execution=trial.execution,
        duration_s=trial.duration_s,
        warmup_s=trial.warmup_s,
        seed=trial.seed,
        at_least=trial.at_least,
        lengths=lengths,
    )
