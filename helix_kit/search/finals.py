"""The last comparison of a steady search: longer runs on fresh request streams, until one plan is surely the best.

In each round every plan that is left is simulated on a stream that the search has not used, the same for all. Plans are
compared stream by stream, so that what all of them owe to a stream does not count. The mean over the streams is the
plan's value, and its interval follows from how the streams differ.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from helix_kit.metrics.intervals import half_interval, standard_error, t_quantile
from helix_kit.search.candidate import Candidate, LatencyLimits, Trial, excess, mean_score
from helix_kit.simulator.scoring import Score

MAX_ROUNDS, MIN_ROUNDS = 8, 4
"""Streams of the last comparison: the most, and the fewest before a single remaining plan is returned."""
SURELY = 0.98
"""Plans are dropped once they are behind the best with this confidence."""
FAR_BEHIND = 0.1
"""After the first stream plans are dropped that serve less by this share."""
LIMIT_STREAMS = 2
"""After this many streams, plans whose mean latencies exceed the limits are dropped if another plan keeps to them."""
MARGINS = (1.0, 0.95, 0.9)
"""Latencies as shares of their limits: the best plan within each is compared, since a latency differs by stream."""
FINAL_REQUESTS_FACTOR = 2
"""Requests in a window of the last comparison, as a multiple of those in the search's windows."""
FINAL_WARMUP_LIVES, FINAL_LIVES = 0.6, 0.6
"""Its warm-up, and its window at least; see `helix_kit.simulator.Window`."""
STATED_STREAMS, STATED_WARMUP_LIVES, STATED_LIVES = 2, 1.5, 1.0
"""Fresh streams on which the chosen plan is run once more for what it states, and lives of their warm-up and window.
Plans are compared over shorter runs. In these the requests of the start may still matter, much alike for all plans."""

Simulating = Callable[[Sequence[Candidate], Trial], list[Candidate]]
"""Simulates candidates; fewer come back where the time was over."""


class Decision(NamedTuple):
    """The result of the last comparison."""

    measured: list[Candidate]
    seeds: list[int]
    """Seeds of the request streams that the scores are means over."""
    left: int | None = None
    """How many of the first of `measured` were compared on all streams; None: all of them."""
    token_s: float = 0.0
    """Seconds that a token of its runs took, of a worker's time; 0 where none was measured."""


@dataclass
class Finals:
    """The candidates that are left, and what each served on each stream."""

    left: list[Candidate]
    value_of: Callable[[Candidate, Score], float]
    """The value of a candidate under a score."""
    limits: LatencyLimits = field(default_factory=LatencyLimits)
    runs: dict[int, list[Score]] = field(default_factory=dict)
    """Scores of a candidate, by the identity of its object."""
    entered: list[Candidate] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)

    def compare(self, trial: Trial, simulate: Simulating, may_go_on: Callable[[int], bool], max_rounds: int) -> None:
        """Rounds until one plan is left, the streams suffice, or `may_go_on`, asked with the plans left, says no."""
        self.entered = list(self.left)
        for round_number in range(max_rounds):
            if not may_go_on(len(self.left)):
                return
            fresh_trial = replace(trial, seed=trial.seed + 1 + round_number)
            simulated = simulate(self.left, fresh_trial)
            if len(simulated) < len(self.left):
                return
            for candidate, result in zip(self.left, simulated, strict=True):
                self.runs.setdefault(id(candidate), []).append(result.measured)
            self.seeds.append(fresh_trial.seed)
            self._drop()
            if len(self.left) == 1 and round_number + 1 >= MIN_ROUNDS:
                return

    def _values(self, candidate: Candidate) -> np.ndarray:
        return np.array([self.value_of(candidate, score) for score in self.runs[id(candidate)]])

    def _keeps_to_limits(self, candidate: Candidate) -> bool:
        return excess(mean_score(self.runs[id(candidate)]), self.limits) <= 1

    def _drop(self) -> None:
        """Drop the plans that are surely behind the best of those within the limits, or of all if there are none."""
        values = {id(c): self._values(c) for c in self.left}
        keeping = [c for c in self.left if self._keeps_to_limits(c)]
        best = max(keeping or self.left, key=lambda c: float(values[id(c)].mean()))
        top = values[id(best)]

        def stays(c: Candidate) -> bool:
            if c is best:
                return True
            if keeping and c not in keeping:
                return len(self.runs[id(c)]) < LIMIT_STREAMS
            behind = top - values[id(c)]
            if len(behind) == 1:
                return float(behind[0]) <= FAR_BEHIND * float(top[0])
            return float(behind.mean()) <= t_quantile(len(behind), SURELY) * standard_error(behind)

        self.left = [c for c in self.left if stays(c)]

    def measured(self) -> list[tuple[Candidate, Score]]:
        """Every candidate that was simulated on a fresh stream, with its mean score and interval; those left first."""
        order = [*self.left, *(c for c in self.entered if c not in self.left)]
        return [(c, score_over(self.runs[id(c)])) for c in order if id(c) in self.runs]


def nearest(ranked: Sequence[Candidate], limits: LatencyLimits) -> list[Candidate]:
    """The best candidates within the limits, with more and less room to spare, or the one least above them.

    `ranked` has the largest value first. Without limits there is none.
    """
    if limits == LatencyLimits() or not ranked:
        return []
    within = [next((c for c in ranked if excess(c.measured, limits) <= margin), None) for margin in MARGINS]
    return [c for c in within if c is not None] or [min(ranked, key=lambda c: (excess(c.measured, limits), -c.value))]


def score_over(runs: Sequence[Score]) -> Score:
    """The mean of scores on several streams, with the half width of its interval.

    Three streams or more tell the interval by their differences; with fewer it follows from the batches of each run.
    """
    mean = mean_score(runs)
    count = len(runs)
    half = mean.half_width_tokens_per_s / math.sqrt(count)
    if count > 2:
        half = half_interval([r.decode_tokens_per_s for r in runs])
    return replace(mean, half_width_tokens_per_s=half)


def stated_trials(final: Trial, seeds: Sequence[int], most_tokens: int | None) -> list[Trial]:
    """Trials for what the chosen plan states, on streams that neither the search nor the last comparison used."""
    long = replace(final, warmup_lives=STATED_WARMUP_LIVES, lives=STATED_LIVES, most_tokens=most_tokens)
    return [replace(long, seed=max(seeds) + 1 + i) for i in range(STATED_STREAMS)]


def final_trial(trial: Trial) -> Trial:
    """The trial of the last comparison: longer, and no run of it ends early."""
    return replace(
        trial,
        requests=FINAL_REQUESTS_FACTOR * (trial.requests or 0),
        warmup_lives=FINAL_WARMUP_LIVES,
        lives=FINAL_LIVES,
        floor_tokens_per_s=0.0,
    )
