"""The search for the cheapest fleet: the program proposes pipelines, simulations measure them, until both agree.

Rates start as estimates that are meant to be high. Whatever pipelines the program chooses are then simulated, and the
program is solved again with what they really serve. It ends when all chosen pipelines are measured: those that are left
are not worth their price even at their estimates. Their estimates are scaled by the best ratio of measured to estimated
rates among pipelines of one of their kinds alone, and the bound on the price holds under this assumption.

The fleet so found is simulated as a whole. One that breaks the SLO is replaced by one for a somewhat higher rate; if it
holds, cheaper ones for somewhat lower rates are tried, since pipelines that share requests even out bursts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from helix_kit.fleets.check import Checker, Outcome
from helix_kit.fleets.clock import OutOfTimeError
from helix_kit.fleets.patterns import Pattern
from helix_kit.fleets.program import Choice, Limits, cheapest_choice
from helix_kit.placement.plan import Plan
from helix_kit.placement.watch import Watch

SLACK = 1.05
"""Estimates stay above the measured ratio by this factor."""
DEMAND_STEP = 0.03
"""Share of the rate by which the program's demand is raised or lowered after a check of the fleet."""
MAX_RAISES, MAX_LOWERS = 12, 12
"""Steps upwards and downwards at most."""
MIN_SOLVE_S = 0.5
"""Seconds for an integer program at least: it usually takes much less."""
MAX_FAILURES = 2
"""Cheaper fleets that break the SLO before no further ones are tried."""


@dataclass(frozen=True)
class Candidate:
    """A fleet that was simulated.

    Examples
    --------
    >>> candidate = Candidate({Pattern((("L4", 32),), 0.71, 1.0): 2}, None, Outcome(1.0, False, {}, {}), 0.99)
    >>> candidate.usd_per_hour, candidate.holds
    (1.42, True)
    """

    count: Mapping[Pattern, int]
    """Pattern -> pipelines."""
    plan: Plan | None
    """Its plan."""
    outcome: Outcome
    """How the simulation went."""
    at: float
    """The share that should keep the SLO."""

    @property
    def usd_per_hour(self) -> float:
        """Rent of all machines."""
        return round(sum(p.usd_per_hour * n for p, n in self.count.items()), 6)

    @property
    def kinds(self) -> set[str]:
        """Kinds of its machines."""
        return {kind for pattern in self.count for kind in pattern.uses}

    @property
    def holds(self) -> bool:
        """Whether it keeps the SLO."""
        return self.outcome.holds(self.at)


class Search:
    """Programs and simulations in turn, for one rate.

    Parameters
    ----------
    checker
        Simulates, and remembers.
    rate_per_s
        The rate to serve.
    limits
        Stock, budget and solver.
    watch
        Its clock ends the search.
    """

    def __init__(self, checker: Checker, rate_per_s: float, limits: Limits, watch: Watch) -> None:
        self._checker, self._rate, self._limits, self._watch = checker, rate_per_s, limits, watch
        self.tell: Callable[[str], None] = lambda text: None

    def measure_each_kind(self, patterns: Sequence[Pattern]) -> None:
        """Measure the shortest pipeline of each kind, as far as there is time; others' estimates are scaled from it."""
        first: dict[str, Pattern] = {}
        for pattern in patterns:
            if pattern.is_of_one_kind:
                first.setdefault(pattern.stages[0][0], pattern)
        if not first:
            first[""] = max(patterns, key=lambda p: p.estimate_per_s)
        for pattern in first.values():
            with suppress(OutOfTimeError):
                self._measure(pattern, pattern.estimate_per_s)

    def rates(self, patterns: Sequence[Pattern]) -> dict[Pattern, float]:
        """Pattern -> what it serves: measured, or else its scaled estimate."""
        ratio: dict[str, float] = {}
        for pattern, capacity in self._checker.capacities.items():
            if pattern.is_of_one_kind:
                kind = pattern.stages[0][0]
                ratio[kind] = max(ratio.get(kind, 0.0), capacity.rate_per_s / pattern.estimate_per_s)
        known = self._checker.capacities
        return {
            p: known[p].rate_per_s
            if p in known
            else p.estimate_per_s * SLACK * max(ratio.get(kind, 1.0) for kind in p.uses)
            for p in patterns
        }

    def measured(self, patterns: Sequence[Pattern]) -> dict[Pattern, float]:
        """Pattern -> what it serves, of measured ones alone."""
        known = self._checker.capacities
        return {p: known[p].rate_per_s for p in patterns if p in known}

    def settle(self, patterns: Sequence[Pattern]) -> Choice | None:
        """Solve and measure until the choice consists of measured pipelines; the last choice with estimates.

        Where the time is over, its pipelines may be estimates too.
        """
        while True:
            choice = cheapest_choice(self.rates(patterns), self._rate, self._limits_now())
            if choice is None:
                return None
            unknown = [p for p in choice.count if p not in self._checker.capacities]
            if not unknown or self._watch.is_over():
                return choice
            try:
                for pattern in unknown:
                    self._measure(pattern, pattern.estimate_per_s)
            except OutOfTimeError:
                return choice

    def fleets(self, patterns: Sequence[Pattern], seeds: int) -> list[Candidate]:
        """Simulated fleets of measured pipelines, around the cheapest that keeps the SLO, as far as there is time.

        Empty if none is possible.
        """
        found: dict[tuple[tuple[Pattern, int], ...], Candidate] = {}
        with suppress(OutOfTimeError):
            self._try_fleets(self.measured(patterns), seeds, found)
        return list(found.values())

    def _try_fleets(
        self, rates: Mapping[Pattern, float], seeds: int, found: dict[tuple[tuple[Pattern, int], ...], Candidate]
    ) -> None:
        """Fill `found`. OutOfTimeError where there was no time for one more."""

        def tried(demand: float) -> Candidate | None:
            choice = cheapest_choice(rates, self._rate * demand, self._limits_now())
            if choice is None:
                return None
            key = tuple(sorted(choice.count.items(), key=lambda item: item[0].text))
            if key not in found:
                plan, outcome = self._checker.check(choice.count, self._rate, seeds)
                found[key] = Candidate(choice.count, plan, outcome, self._checker.at)
                self.tell(f"fleet at {choice.value:.2f} USD/h: {outcome.attainment:.2%} keep the SLO")
            return found[key]

        step, first = 0, tried(1.0)
        candidate = first
        while candidate is not None and not candidate.holds and step < MAX_RAISES and not self._watch.is_over():
            step += 1
            candidate = tried(1.0 + DEMAND_STEP * step)
        if first is None or not first.holds:
            return
        failures = 0
        for step in range(1, MAX_LOWERS + 1):
            before = len(found)
            candidate = tried(1.0 - DEMAND_STEP * step)
            if candidate is not None and len(found) > before:
                failures += not candidate.holds
            if failures >= MAX_FAILURES or self._watch.is_over():
                break

    def _limits_now(self) -> Limits:
        """The limits, with a time limit that ends with the search."""
        return self._limits._replace(time_limit_s=min(self._limits.time_limit_s, max(MIN_SOLVE_S, self._watch.left_s)))

    def with_time(self, watch: Watch) -> Search:
        """The same search with another clock."""
        other = Search(self._checker, self._rate, self._limits, watch)
        other.tell = self.tell
        return other

    def without_budget(self) -> Search:
        """The same search without a budget."""
        other = Search(self._checker, self._rate, self._limits._replace(budget_usd_per_hour=None), self._watch)
        other.tell = self.tell
        return other

    def _measure(self, pattern: Pattern, guess_per_s: float) -> None:
        known = self.rates([pattern])[pattern] or guess_per_s
        capacity = self._checker.measure(pattern, known / SLACK)
        self.tell(f"{pattern.text}: {capacity.rate_per_s:.2f} requests/s")


__all__ = ["Candidate"]
