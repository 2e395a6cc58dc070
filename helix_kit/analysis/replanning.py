"""Placements of changed clusters: carried over from the present plan and repaired, planned anew, learnt from others.

The seconds are divided by what was measured. A flow takes much longer on a large cluster than on a small one, and so
does what a plan needs beyond its own time limit. Where a change's share of the seconds does not suffice for a plan from
scratch, all of it goes into local search from the present placement.
"""

from __future__ import annotations

import math
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from helix_kit.analysis.changes import Change
from helix_kit.analysis.judge import Entry, Judge, Worth, best_of, improved, problem_on
from helix_kit.analysis.repair import climbed
from helix_kit.errors import HelixKitError
from helix_kit.flow import Placement
from helix_kit.placement.planner import plan_problem, read_options
from helix_kit.placement.problem import Problem
from helix_kit.placement.watch import Watch
from helix_kit.search.starting import safe_placements

MIN_SOLVE_S = 0.1
"""A cluster is planned anew only where its share of the seconds leaves so many for the search itself."""
BEYOND_S = 0.4
"""Seconds that a plan takes beyond its time limit, for bounds and flows, until that has been measured."""
BASE_SHARES = 3
"""Shares of the present cluster: all gains are counted against it."""
CLIMB_S = 0.1
"""Seconds of hill climbing from one placement."""
LOCAL_SHARE = 0.5
"""Share of the seconds for a cluster in which the present placement is improved; in the rest it is planned anew."""
SAFE_SHARE = 0.5
"""Share of those seconds in which other shapes are tried for a served plan, before the best of all is improved."""


@dataclass
class Answer:
    """A change with what was found for it."""

    change: Change
    entries: list[Entry]
    carried: Entry | None = None
    """The first of the placements that were carried over. It is simulated whatever is expected of it."""
    gap: float | None = None
    best: Entry | None = None
    worth: Worth | None = None
    is_predicted: bool = False
    """Whether the time was over before it was planned or simulated."""


@dataclass
class Clock:
    """The seconds for planning, and what the parts of it were seen to take."""

    ends_s: float
    """Of `time.perf_counter`: planning ends here, and what was found is tried on other clusters."""
    limit_s: float | None
    """Seconds for each cluster, where the caller has said so."""
    beyond_s: float = BEYOND_S
    """Seconds that the last plan took beyond its time limit."""

    @property
    def is_over(self) -> bool:
        """Whether the seconds for all of them are over."""
        return self.limit_s is None and time.perf_counter() >= self.ends_s

    def solve_s(self, index: int, answers: int) -> float:
        """Seconds for one of so many clusters, the present one first: as was said, or its share of what is left."""
        if self.limit_s is not None:
            return self.limit_s
        left_s, shares = max(0.0, self.ends_s - time.perf_counter()), answers - index
        return left_s / shares if index else BASE_SHARES * left_s / (shares - 1 + BASE_SHARES)

    def plan_s(self, solve_s: float) -> float:
        """Time limit of the planner, of the seconds for a cluster that are left for planning it anew."""
        return solve_s if self.limit_s is not None else solve_s - self.beyond_s


def plan_anew(
    answer: Answer, judge: Judge, start: Entry, clock: Clock, solve_s: float, options: dict[str, Any]
) -> None:
    """Fill in the placements found for a cluster in `solve_s`: planned anew, carried over, and repaired."""
    plan = judge.plan
    until_s = time.perf_counter() + solve_s
    try:
        problem = plan.problem if answer.change.kind == "base" else problem_on(plan.problem, answer.change.cluster)
    except HelixKitError:
        return
    if judge.has_replicas:
        # The integer program places replicas anew within a moment; moves would let pipelines share machines.
        with suppress(HelixKitError):
            placed = plan_problem(problem, method="replicas", flow_split=plan.flow_split)
            answer.entries.append(Entry(problem, placed.placement, placed.max_flow))
        return
    # The present cluster is always planned anew, and says what that takes beyond the time limit.
    is_base = answer.change.kind == "base"
    is_planned = is_base or clock.limit_s is not None or clock.plan_s((1 - LOCAL_SHARE) * solve_s) >= MIN_SOLVE_S
    found = _carried_over(problem, start, judge, time.perf_counter() + (LOCAL_SHARE if is_planned else 1) * solve_s)
    answer.carried = found[0]
    answer.entries += found
    if not is_planned:
        return
    limit_s = max(MIN_SOLVE_S, clock.plan_s(until_s - time.perf_counter()))
    own = {"partial_inference": plan.partial_inference, "flow_split": plan.flow_split, "seed": plan.seed}
    began = time.perf_counter()
    try:
        solved = plan_problem(problem, read_options({**own, "time_limit_s": limit_s, **options}))
    except HelixKitError:
        return
    clock.beyond_s = max(0.0, time.perf_counter() - began - limit_s)
    answer.entries.append(judge.entry(problem, solved.placement))
    answer.gap = solved.gap


def _carried_over(problem: Problem, start: Entry, judge: Judge, until_s: float) -> list[Entry]:
    """The placement itself on this cluster, and what hill climbing and local search make of it until `until_s`.

    The first is that with an added machine alone beside the present ones, if it holds the model.
    """
    served = judge.plan.served
    shares = bool(served and served.ease)
    half_s = (time.perf_counter() + until_s) / 2
    entries: list[Entry] = []
    for placement in _without_the_lost(problem, start):
        for as_planned in (True, False) if shares else (False,):
            if not entries or time.perf_counter() < half_s:
                entries.append(judge.entry(problem, placement, as_planned=as_planned))
    if served is not None:
        entries = _beside(problem, start, judge) + entries + _safe(problem, judge, until_s)
    best = max(entries, key=judge.expected)
    names = frozenset(best.placement)
    for kept in (names, frozenset()):
        if time.perf_counter() < until_s:
            deadline_s = min(until_s, time.perf_counter() + CLIMB_S)
            entries.append(judge.entry(problem, climbed(problem, best.placement, kept, deadline_s)))
    best = max(entries, key=judge.expected)
    entries.append(improved(judge, best, until_s, judge.plan.seed))
    return entries


def _beside(problem: Problem, start: Entry, judge: Judge) -> list[Entry]:
    """The placement with the added machines that hold the whole model beside it; empty where there is none.

    It serves about what the present one and the machines alone serve, more surely than the predictor can tell.
    """
    layers = problem.num_layers
    added = [n.name for n in problem.cluster.nodes if n.name not in start.problem.kind_of]
    alone = {name: (0, layers) for name in added if problem.max_layers(name) >= layers}
    return [judge.entry(problem, {**start.placement, **alone}, as_planned=True)] if alone else []


def _safe(problem: Problem, judge: Judge, until_s: float) -> list[Entry]:
    """The shapes that a served plan must not be worse than, such as kinds side by side, as far as the seconds suffice.

    A machine more rarely fits into the present pipelines, and the plan of the largest flow often serves less. So the
    search for served plans begins with these shapes too.
    """
    watch = Watch(SAFE_SHARE * max(0.0, until_s - time.perf_counter()))
    entries = []
    for placement in safe_placements(problem, [], judge.plan.seed, watch):
        if watch.is_over():
            break
        entries.append(judge.entry(problem, placement))
        judge.expected(entries[-1])
    return entries


def _without_the_lost(problem: Problem, start: Entry) -> list[Placement]:
    """The placement on the machines that are left.

    Machines of one kind in one region differ only in their layers, so any of them may be the one that is lost: each is
    tried.
    """
    before, here = start.problem.cluster, set(problem.kind_of)
    held = {n: span for n, span in start.placement.items() if n in here}
    variants: list[Placement] = [held]
    for lost in (n for n in before.nodes if n.name not in here and n.name in start.placement):
        seen = {start.placement[lost.name]}
        for peer in problem.cluster.nodes:
            alike = (peer.kind, peer.region) == (lost.kind, lost.region)
            if alike and peer.name in held and held[peer.name] not in seen:
                seen.add(held[peer.name])
                variants.append({**held, peer.name: start.placement[lost.name]})
    return variants


def learn_from_each_other(losses: list[Answer], judge: Judge, until_s: float = math.inf) -> None:
    """Try the best placements of other losses for each: the machine that is there again takes the lost one's place.

    So the loss of a fast machine costs at least as much as that of a slower one. The best ones are tried first, until
    `until_s` (of `time.perf_counter`), and none that is expected to be worth less than what a loss has already.
    """
    best = {id(answer): best_of(judge, answer.entries, 1) for answer in losses}
    ranked = sorted((a for a in losses if best[id(a)]), key=lambda a: -judge.expected(best[id(a)][0]))
    for other in ranked:
        (entry,) = best[id(other)]
        for answer in losses:
            if answer is other or not answer.entries:
                continue
            if time.perf_counter() >= until_s:
                return
            own = best_of(judge, answer.entries, 1)
            if own and judge.expected(own[0]) >= judge.expected(entry):
                continue
            problem = answer.entries[0].problem
            here = set(problem.kind_of)
            placement = {n: span for n, span in entry.placement.items() if n in here}
            back = [n for n in here if n not in entry.problem.kind_of]
            gone = [span for n, span in entry.placement.items() if n not in here]
            placement |= {n: s for n, s in zip(back, gone) if s[1] - s[0] <= problem.max_layers(n)}
            answer.entries.append(judge.entry(problem, placement))


def learn_from_changes(base: Answer, others: list[Answer], judge: Judge, until_s: float = math.inf) -> None:
    """Try the best placement of each change without it: what it serves there as well is not what the change brings.

    The most promising one is tried even after `until_s`: it is the one that would seem to be a gain of every change.
    """
    if not base.entries:
        return
    problem = base.entries[0].problem
    found = [entry for answer in others for entry in best_of(judge, answer.entries, 1)]
    for number, entry in enumerate(sorted(found, key=judge.expected, reverse=True)):
        if number and time.perf_counter() >= until_s:
            return
        held = {n: span for n, span in entry.placement.items() if n in problem.kind_of}
        base.entries.append(judge.entry(problem, held))
