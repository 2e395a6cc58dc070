"""Rounds of search and proof: each has several times the budget of the last, and goes on where the last one stopped.

A budget does not depend on the time limit, which only says after how much of the work the search ends. So the plan of a
longer limit is never worse than that of a shorter one, apart from how fast the machine is at the time.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from helix_kit.errors import InfeasibleError
from helix_kit.placement import bounds
from helix_kit.placement.annealing import Annealing, CrossingAnnealing
from helix_kit.placement.annealing.search import MAX_FLOW_NODES
from helix_kit.placement.bounds.covers import forget
from helix_kit.placement.method import Task
from helix_kit.placement.pattern.compiled_steps import CompiledSteps
from helix_kit.placement.pattern.incumbent import Incumbent
from helix_kit.placement.pattern.pins import place_around_pins
from helix_kit.placement.pattern.region_sets import FEW_REGIONS
from helix_kit.placement.pattern.regions import PartitionSearch
from helix_kit.placement.pattern.search import Candidate
from helix_kit.placement.pattern.small import by_length, by_range, is_small, solve_coverage
from helix_kit.placement.solvers import SolverSettings
from helix_kit.placement.watch import Watch

FIRST_ROUND_S, GROWTH = 1.5, 3.0
"""Budget of the first round, and how much larger each next one is."""
BOUND_SHARE, AGAIN_SHARE, PATTERN_SHARE, PROOF_SHARE = 0.2, 0.35, 0.65, 0.3
"""Shares of what is left of a round, in this order: bounds that know the regions, the pattern program once more on what
it has searched in earlier rounds, the pattern program on all else, and proofs. The rest is annealing."""
ONLY_PATTERN_SHARE = 0.9
"""Share of the pattern program in a round that is the first and the last: a placement is worth more than a proof."""
CLOSE_GAP = 1e-3
"""Gap at which annealing and proofs end; the pattern program still runs to its own precision."""
UNFINISHED_PATIENCE = 5.0
"""Patience is this many times as long while the pattern program has not ended."""
ORDERED_SHARE = 0.3
"""Share of what is left of a round after the pattern program for B6, before the other proofs."""
FEW_NODES, LINKED_SHARE, LINKED_SHARE_OF_FEW = 8, 0.2, 0.4
"""Shares of what is left of a round for B7, the second one with up to so many nodes."""
CROSSING_SHARE = 0.8
"""Share of what is left of a round after the pattern program for annealing that counts the links between regions."""
PROGRAM_LIMIT_S = 6.0
"""Seconds for the exact program on a small problem."""


class Rounds:
    """The search of method ``pattern``.

    Parameters
    ----------
    task
        Problem, options, and the watch that values and bounds are reported to.
    best
        The best placement so far, which the rounds improve.
    pins
        Checked pins.
    """

    def __init__(self, task: Task, best: Incumbent, pins: Mapping[str, tuple[int, int]]) -> None:
        self.task, self.best, self.pins = task, best, dict(pins)
        self.proven: dict[str, float] = {}
        """Label of a bound -> tokens/s."""
        self.search = None if pins else PartitionSearch(task)
        self.annealing: Annealing | None = None
        self.crossings: CrossingAnnealing | None = None
        self._steps = CompiledSteps()
        self._num_nodes = sum(g.size for g in task.groups)
        self._several = len({g.region for g in task.groups}) > 1
        self._pattern_finished = False
        self._finished_bounds: set[str] = set()
        self._refuted_from: dict[str, float] = {}

    @property
    def bound(self) -> float:
        """The least proven bound in tokens/s."""
        return min(self.proven.values())

    def gap_above(self, gap: float) -> bool:
        """Whether bound and value are further apart than this (relative)."""
        return self.best.value < self.bound / (1 + gap)

    def run(self, watch: Watch) -> None:
        """Search until the watch is over, the gap is closed, or nothing is left to try."""
        task = self.task
        if watch.is_counted:
            forget()
        problem = task.problem
        self._prove(
            "B1",
            lambda _: bounds.least_bound(problem, task.groups, lambda g, n, _: bounds.spread_bound(g, n), math.inf),
            watch,
        )
        self._prove("B2", self._cover_bound, watch)
        budget_s = FIRST_ROUND_S
        with self._steps:
            if watch.is_counted:
                self._steps.moves.wait()
                self._steps.listing.wait()
            while not watch.is_over() and self.gap_above(bounds.PRECISION):
                clock = watch.for_part(budget_s)
                budget_s *= GROWTH
                self._round(clock)
                if self._is_done():
                    return
                self._load()

    def _cover_bound(self, clock: Watch) -> float:
        """B2. Where layers are alike it is remembered, as the search of all regions asks for the same bound."""
        problem, groups = self.task.problem, self.task.groups
        if problem.is_uniform:
            return bounds.cover_bound_of(tuple(groups), problem.num_layers, clock.is_over)
        return bounds.least_bound(
            problem,
            groups,
            lambda g, n, high: bounds.cover_bound(g, n, low=0.0, high=high, should_stop=clock.is_over),
            self.bound,
        )

    def _load(self) -> None:
        """Load compiled code for the rounds after the first, or start to compile it."""
        if not self.task.watch.is_over() and self._can_anneal():
            self._steps.moves.is_ready()
            self._may_cross()
        if not self.task.watch.is_over():
            self._steps.listing.is_ready()
        if not self.task.watch.is_over():
            self._may_walk()

    def _is_done(self) -> bool:
        """Whether to end before the time limit."""
        if self._is_impatient():
            return True
        if not self._pattern_finished:
            return False
        if not self.gap_above(CLOSE_GAP):
            return True
        if self._may_search_again() and (self._steps.listing.is_ready() or self._steps.listing.is_pending()):
            return False
        if self._may_walk():
            return False
        return not self._can_anneal() or (self.annealing is None and not self._steps.moves.is_pending())

    def _may_search_again(self) -> bool:
        """Whether a set of regions is left that the pattern program can search with stages that take longer to find.

        Of many regions there are many sets: each of them is searched once before any is searched again.
        """
        search = self.search
        if search is None or not (self._pattern_finished or len(search.names) <= FEW_REGIONS):
            return False
        return not search.is_exhausted

    def _may_walk(self) -> bool:
        """Whether a gap is left that B7 may close, and its compiled steps are loaded."""
        if self._num_nodes > bounds.MAX_LINKED_NODES or not self.gap_above(CLOSE_GAP):
            return False
        if self.best.value <= self._refuted_from.get("B7", 0.0):
            return False
        if self.task.watch.is_counted:
            self._steps.walking.wait()
        return self._steps.walking.is_ready()

    def _may_cross(self) -> bool:
        """Whether there are so many nodes in several regions that only `CrossingAnnealing` moves them in time."""
        if not self._several or self._num_nodes <= MAX_FLOW_NODES or not self._can_anneal():
            return False
        if self.task.watch.is_counted:
            self._steps.crossing_moves.wait()
        return self._steps.crossing_moves.is_ready()

    def _is_impatient(self) -> bool:
        """Whether the last better placement is longer ago than the user wants to wait."""
        patience_s = self.task.options.patience_s
        if patience_s is None:
            return False
        factor = 1.0 if self._pattern_finished else UNFINISHED_PATIENCE
        return self.task.watch.seconds - self.best.improved_s > factor * patience_s

    def _can_anneal(self) -> bool:
        """Whether annealing may move nodes: it knows no cap on depth."""
        return self.task.options.max_stages is None and self.best.flows is not None

    def _round(self, clock: Watch) -> None:
        # In the first round the pattern program is worth more, unless few nodes are soon searched.
        is_first = clock.time_limit_s <= FIRST_ROUND_S
        leads = self._num_nodes <= FEW_NODES and "numba" in sys.modules if is_first else True
        has_walked = leads and self._prove_linked(clock)
        if self._several and not self.pins and self.task.options.max_stages is None:
            self._prove_regions(clock.for_part(clock.left_s * BOUND_SHARE))
        if self.gap_above(CLOSE_GAP) and self._may_search_again() and self._steps.listing.is_ready():
            self._run_again(clock.for_part(clock.left_s * AGAIN_SHARE))
        if not self._pattern_finished and self.gap_above(bounds.PRECISION):
            is_only = self.task.watch.time_limit_s <= FIRST_ROUND_S
            self._run_pattern(clock.for_part(clock.left_s * (ONLY_PATTERN_SHARE if is_only else PATTERN_SHARE)))
        if not is_first and self.gap_above(CLOSE_GAP) and self._may_cross():
            self._anneal_crossings(clock.for_part(clock.left_s * CROSSING_SHARE))
        if self.gap_above(CLOSE_GAP) or (self._pattern_finished and self.gap_above(bounds.PRECISION)):
            self._prove_ordered(clock.for_part(clock.left_s * ORDERED_SHARE))
        if self._pattern_finished and not has_walked:
            self._prove_linked(clock)
        if self.gap_above(CLOSE_GAP) or (self._pattern_finished and self.gap_above(bounds.PRECISION)):
            self._prove_whole(clock.for_part(clock.left_s * PROOF_SHARE))
        if not self.gap_above(CLOSE_GAP) or not self._can_anneal():
            return
        if not self._pattern_finished and self.search is not None and "numba" not in sys.modules:
            # In the first round the pattern program, which does without compiled code, is worth more than loading it.
            self._run_pattern(clock)
            return
        if self.annealing is None and self._steps.moves.is_ready():
            assert self.best.flows is not None
            self.annealing = Annealing(self.task, self.best.flows, self.pins)
            self.annealing.offer(self.best.placement)
        if self.annealing is not None and not self.annealing.is_idle:
            self._anneal(self.annealing, clock)

    def _anneal_crossings(self, clock: Watch) -> None:
        """Annealing that counts the links between regions, from the best placement on."""
        assert self.best.flows is not None
        if self.crossings is None:
            self.crossings = CrossingAnnealing(self.task, self.best.flows, self.pins)
        self.crossings.offer(self.best.placement)
        self._anneal(self.crossings, clock)

    def _run_pattern(self, clock: Watch) -> None:
        """The pattern program, over the regions or around the pins."""
        if self.search is None:
            try:
                placement = place_around_pins(replace(self.task, watch=clock), self.pins, self.bound)
            except InfeasibleError:
                if not self.best.placement:
                    raise
                self._pattern_finished = True
                return
            self.best.consider(placement)
            self._pattern_finished = not clock.is_over()
            return
        if self.task.options.max_stages is None:
            self.search.offer(Candidate(self.best.value, self.best.placement))
        self.search.advance(clock, self.bound)
        self._pattern_finished = self.search.is_finished
        self._take(self.search)

    def _run_again(self, clock: Watch) -> None:
        """The pattern program once more on sets of regions, with stages that take longer to find."""
        assert self.search is not None
        if self.task.options.max_stages is None:
            self.search.offer(Candidate(self.best.value, self.best.placement))
        while not clock.is_over() and not self.search.is_exhausted and self.gap_above(CLOSE_GAP):
            self.search.search_again(clock, self.bound)
        self._take(self.search)

    def _take(self, search: PartitionSearch) -> None:
        """Consider the best placement of the pattern program, and let annealing go on from the best of all."""
        if search.best is not None:
            self.best.consider(search.best.placement)
        if self.annealing is not None:
            self.annealing.offer(self.best.placement)

    def _anneal(self, annealing: Annealing | CrossingAnnealing, clock: Watch) -> None:
        """Legs of annealing until the round is over or the gap is closed."""
        while not clock.is_over() and self.gap_above(CLOSE_GAP):
            annealing.advance(clock)
            self.best.consider(annealing.placement)
            if annealing.is_idle or self._is_impatient():
                return

    def _prove(self, name: str, bound_of: Callable[[Watch], float], clock: Watch) -> None:
        """Record a bound; it is finished unless the clock cut it short."""
        if name in self._finished_bounds or (self.proven and not self.gap_above(bounds.PRECISION)):
            return
        bound = bound_of(clock)
        self.proven[name] = min(bound, self.proven.get(name, bound))
        self.task.watch.report(bound=self.bound)
        if not clock.is_over():
            self._finished_bounds.add(name)

    def _prove_regions(self, clock: Watch) -> None:
        """B5 and B4 know the links between regions. Proven before the search, they spare it targets above them."""
        problem = self.task.problem
        groups = bounds.relaxed_groups(problem, self.task.groups)
        self._prove(
            "B5",
            lambda watch: bounds.region_bound(problem, groups, high=self.bound, should_stop=watch.is_over),
            clock,
        )
        # B4 is found to a tolerance, or as far as the value: a better value asks for more.
        value = self.best.value
        if value > self._refuted_from.get("B4", 0.0):
            self._finished_bounds.discard("B4")
        self._prove(
            "B4",
            lambda watch: bounds.pair_bound(
                groups,
                problem.num_layers,
                low=value,
                high=self.bound,
                fastest_crossing=bounds.fastest_crossing(problem, groups),
                effort=bounds.ProofEffort(watch, self.task.options.solver),
            ),
            clock,
        )
        if "B4" in self._finished_bounds:
            self._refuted_from["B4"] = value

    def _prove_whole(self, clock: Watch) -> None:
        """B3, and for a small problem the exact program, which may also find a better placement."""
        task, solver = self.task, self.task.options.solver
        if self.best.value > self._refuted_from.get("B3", 0.0):
            effort = bounds.ProofEffort(clock, solver)
            bound = bounds.least_bound(
                task.problem,
                task.groups,
                lambda g, n, high: bounds.whole_cover_bound(g, n, low=self.best.value, high=high, effort=effort),
                self.bound,
            )
            self.proven["B3"] = min(bound, self.proven.get("B3", bound))
            task.watch.report(bound=self.bound)
            if not effort.watch.is_over():
                self._refuted_from["B3"] = self.best.value
        free = not self.pins and task.options.max_stages is None
        problem, groups = task.problem, bounds.relaxed_groups(task.problem, task.groups)
        if not free or "coverage" in self._finished_bounds or not is_small(groups, task.problem.num_layers):
            return
        if not self.gap_above(bounds.PRECISION):
            return
        limit_s, stop = clock.solver_limit(PROGRAM_LIMIT_S)
        settings = SolverSettings(solver, limit_s, 1e-6, task.options.seed, stop)
        found = solve_coverage(
            groups,
            problem.num_layers,
            cap_tokens_per_s=self.bound,
            settings=settings,
            speed_of=by_length if problem.is_uniform else partial(by_range, problem),
        )
        if found.bound_tokens_per_s is not None:
            # The solver proves its bound to a relative gap of 1e-6.
            self.proven["coverage"] = min(found.bound_tokens_per_s * (1 + 1e-6), self.proven.get("coverage", 1e300))
            task.watch.report(bound=self.bound)
        if found.placement:
            self.best.consider(found.placement)
        if not clock.is_over():
            self._finished_bounds.add("coverage")

    def _prove_ordered(self, clock: Watch) -> None:
        """B6, which goes on in each round until nothing is left open. It may also find a better placement."""
        if self.best.value <= self._refuted_from.get("B6", 0.0):
            return
        found = bounds.ordered_bound(
            self.task.problem, self.task.groups, low=self.best.value, high=self.bound, watch=clock
        )
        self._take_answers("B6", found)

    def _prove_linked(self, clock: Watch) -> bool:
        """B7, which goes on in each round until nothing is left open. It may also find a better placement.

        Returns whether there was something to do.
        """
        flows = self.best.flows
        if flows is None or not self._may_walk():
            return False
        share = LINKED_SHARE_OF_FEW if self._num_nodes <= FEW_NODES else LINKED_SHARE
        watch = clock.for_part(clock.left_s * share)
        found = bounds.linked_bound(
            self.task.problem, self.task.groups, flows, low=self.best.value, high=self.bound, watch=watch
        )
        self._take_answers("B7", found)
        return True

    def _take_answers(self, label: str, found: bounds.OrderedBound | bounds.LinkedBound) -> None:
        """Keep what B6 or B7 proved and met, and from which value on it has nothing left to do."""
        self.proven[label] = min(found.tokens_per_s, self.proven.get(label, found.tokens_per_s))
        self.task.watch.report(bound=self.bound)
        if found.placement and not self.pins and self.task.options.max_stages is None:
            self.best.consider(found.placement)
            if self.annealing is not None:
                self.annealing.offer(self.best.placement)
        if found.is_finished:
            self._refuted_from[label] = self.best.value
