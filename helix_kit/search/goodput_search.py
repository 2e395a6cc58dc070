"""The phases of a search for goodput: those of `Search`, with runs and a last comparison under the SLO.

In the last comparison the finalists meet request streams that the search has not used, several counted together and the
same ones for all. The plans that must not be worse than the chosen one are all among the finalists, as far as they were
simulated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from helix_kit._summary import number, percent
from helix_kit.errors import InfeasibleError
from helix_kit.placement.plan import Plan
from helix_kit.placement.problem import Problem
from helix_kit.search.candidate import Candidate, Trial, is_whole
from helix_kit.search.evaluate import Evaluator
from helix_kit.search.finals import Decision
from helix_kit.search.front import pareto_front
from helix_kit.search.goodput import FLOOR_SHARE, windows_for
from helix_kit.search.messages import Simulate
from helix_kit.search.moves import key_of
from helix_kit.search.phases import Search
from helix_kit.search.steady_finals import FINALISTS, STEPS
from helix_kit.simulator.scoring import Score

FINAL_STREAMS = 3
"""Request streams of the last comparison."""
GUESS_SHARE = 0.5
"""Share of the predicted rate at full load at which the first search for the highest rate begins."""
WITHOUT_FLOOR = 4
"""Finalists whose rate is found in any case; each further one must first hold the best rate so far."""
FLOOR_RANK = 4
"""A plan is simulated further while it is not surely behind this many others."""


class GoodputSearch(Search):
    """A search for the most requests/s within an SLO, or for the highest rate at which it holds."""

    @property
    def has_own_windows(self) -> bool:
        """The windows follow from the SLO and the rate."""
        return True

    @property
    def finds_rate(self) -> bool:
        """Whether the highest rate is searched for, in place of the goodput at a given one."""
        return self.trial.rate_per_s is None

    def progress_of(self, best: Candidate) -> tuple[float, str]:
        """The rate or the goodput of the best plan so far: the figure, and the words of a progress report."""
        value = best.measured.slo_rate_per_s if self.finds_rate else best.measured.goodput_per_s
        words = "the SLO holds until" if self.finds_rate else "goodput"
        return value, f"{words} {value:.4g} requests/s"

    def race(self) -> Trial:
        """The trial in which a plan that does not hold near the fourth best rate ends there."""
        whole = [c for c in self.ranked() if is_whole(c.measured, self.trial.whole_s)]
        if not self.finds_rate or not whole:
            return self.trial
        rates = [c.measured.slo_rate_per_s for c in whole]
        floor = rates[FLOOR_RANK - 1] if len(rates) >= FLOOR_RANK else 0.0
        return replace(
            self.trial, floor_rate_per_s=FLOOR_SHARE * floor, is_rate_known=rates[0] > 0,
            guess_rate_per_s=rates[0] or self.trial.guess_rate_per_s,
        )  # fmt: skip

    def decide(self) -> Decision:
        """Compare the best candidates, those of the front, and the safe ones on fresh streams.

        These simulations come on top of `max_simulations`. Without time the scores of the search are returned.
        """
        ranked = self.ranked()
        front = pareto_front(ranked)
        undecided = Decision(front, [self.trial.seed])
        if self.must_end() or not is_whole(ranked[0].measured, self.trial.whole_s):
            return undecided
        finalists = self._finalists(ranked, front)
        trial = replace(self.trial, seed=self.trial.seed + 1, streams=FINAL_STREAMS)
        measured: list[Candidate] = []
        for start in range(0, len(finalists), STEPS):
            some = finalists[start : start + STEPS]
            if start and self.watch.left_s < FINAL_STREAMS * self.simulation_s:
                break
            results = self.run([Simulate(c, self._started_from(c, trial, measured)) for c in some], self.must_end)
            if len(results) < len(some):
                break
            measured += results
        whole = [c for c in measured if is_whole(c.measured, trial.whole_s)]
        return Decision(whole, list(range(trial.seed, trial.seed + FINAL_STREAMS))) if whole else undecided

    def _finalists(self, ranked: Sequence[Candidate], front: Sequence[Candidate]) -> list[Candidate]:
        """The best, the best safe ones, the front, and then the other safe ones, also those that failed at a floor."""

        def name(c: Candidate) -> str:
            return self.evaluator.identity(c.placement, c.shares)

        safe = {name(c) for c in self.safe}
        best_safe = [c for c in ranked if name(c) in safe]
        order = [ranked[0], *best_safe[:STEPS], *front[:FINALISTS], *self.elites(), *best_safe, *self.safe]
        return self.evaluator.first_of_each(order)

    def _started_from(self, candidate: Candidate, trial: Trial, measured: Sequence[Candidate]) -> Trial:
        """The trial of a finalist: from the rate that it held in the search, or from the best rate of the first few."""
        rates = [c.measured.slo_rate_per_s for c in measured]
        floor = max(rates, default=0.0) if len(rates) >= WITHOUT_FLOOR else 0.0
        own = candidate.score.slo_rate_per_s if candidate.score else 0.0
        return replace(
            trial, floor_rate_per_s=floor, is_rate_known=own > 0, guess_rate_per_s=own or trial.guess_rate_per_s
        )


def best_of(measured: Sequence[Candidate]) -> Candidate:
    """The candidate with the highest rate or goodput; of equal ones that with the largest value."""

    def order(c: Candidate) -> tuple[float, float, object]:
        return c.measured.slo_rate_per_s or c.measured.goodput_per_s, c.value, key_of(c.placement)

    return max(measured, key=order)


def under_slo(trial: Trial, window_s: float | None, evaluator: Evaluator, plan: Plan) -> Trial:
    """The trial with windows for its SLO and a rate to begin with, by what a plan is expected to serve."""
    assert trial.slo is not None
    predictor = evaluator.predictor
    expected = predictor(plan.placement, plan.max_flow, trial.rate_per_s)
    warmup_s, duration_s = windows_for(trial.slo, trial.rate_per_s, expected, predictor.lengths)
    guess = GUESS_SHARE * expected.decode_tokens_per_s / predictor.lengths.output_tokens
    return replace(trial, warmup_s=warmup_s, duration_s=window_s or duration_s, guess_rate_per_s=guess)


def check_holds(chosen: Candidate, problem: Problem, trial: Trial) -> None:
    """Raise InfeasibleError where the highest rate was searched for and the SLO holds at none."""
    if trial.rate_per_s is None and chosen.measured.window_s > 0 and chosen.measured.slo_rate_per_s == 0:
        raise InfeasibleError(
            f"no plan of {problem.model.name} on cluster {problem.cluster.name} was found that keeps {trial.slo}: the "
            f"nearest keeps it for {percent(chosen.measured.attainment)} when it is all but idle",
            fix="raise the limits, lower the share, or add faster machines",
        )


def served_fields(score: Score, trial: Trial) -> dict[str, Any]:
    """The fields of a score that a plan's record has: those about the SLO only where there is one."""
    measured: dict[str, Any] = score.to_dict()
    told = {name: measured.pop(name) for name in ("goodput_per_s", "attainment", "slo_rate_per_s")}
    del measured["goodput_value"]
    if trial.slo is None:
        return measured
    return {**measured, **told, "slo": str(trial.slo), "rate_per_s": trial.rate_per_s}


def goodput_notes(chosen: Candidate, trial: Trial) -> list[str]:
    """What the search says of its plan, beside what is served."""
    found = chosen.measured
    notes = ["bound and gap are of the flow; the rate within an SLO has no proven bound"]
    if found.window_s <= 0:
        notes.append("the time limit came before a simulation ended: no rate within the SLO was measured")
    elif trial.rate_per_s is not None and trial.slo is not None and found.attainment < trial.slo.at:
        notes.append(
            f"the SLO does not hold at {number(trial.rate_per_s)} requests/s: {percent(found.attainment)} of the "
            f"requests keep the limits, {percent(trial.slo.at)} should"
        )
    return notes
