"""What a change of the cluster would bring, by the objective of the plan that is there.

Each cluster, the present one too, is planned anew for the same seconds, and the plan that is there is carried over and
repaired by hill climbing. All these placements are judged alike (`helix_kit.analysis.judge`). A placement of a smaller
cluster counts for the larger ones as well, so that a machine more never costs and a machine less never gains.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from helix_kit._deprecation import renamed_keywords
from helix_kit.analysis.changes import Change, changes
from helix_kit.analysis.cost import cost_of
from helix_kit.analysis.judge import SEEDS, Entry, Judge, Worth, best_of, improved, problem_on
from helix_kit.analysis.repair import climbed
from helix_kit.errors import HelixKitError
from helix_kit.flow import Placement
from helix_kit.placement.plan import Plan
from helix_kit.placement.planner import plan_problem, read_options
from helix_kit.placement.problem import Problem

if TYPE_CHECKING:
    import pandas as pd

Progress = Callable[[int, int, str], None]
"""Called with (changes done, changes in all, name of the next change)."""
TOTAL_S = 16.0
"""Seconds for all changes together, when nothing else is said."""
SOLVE_SHARE = 0.5
"""Share of these seconds for planning where placements are simulated as well."""
MIN_SOLVE_S = 0.3
"""Seconds for planning one cluster at least."""
EXTRA_S = 0.4
"""Seconds that planning one cluster takes beside the search: its bounds, hill climbing, and flows."""
CLIMB_S = 0.1
"""Seconds of hill climbing from one placement."""
LOCAL_SHARE = 0.5
"""Share of the seconds for a cluster in which the present placement is improved; in the rest it is planned anew."""
JUDGED = 2
"""Placements of each cluster that are judged: those that are expected to be worth most. One, where runs take long."""


@dataclass
class _Answer:
    """A change with what was found for it."""

    change: Change
    entries: list[Entry]
    gap: float | None = None
    best: Entry | None = None
    worth: Worth | None = None


@renamed_keywords(time_limit="time_limit_s")
def what_if(
    plan: Plan,
    asked: Iterable[Change] | None = None,
    *,
    time_limit_s: float | None = None,
    total_s: float = TOTAL_S,
    progress: Progress | None = None,
    **options: Any,
) -> pd.DataFrame:
    """Plan each changed cluster, judge it by the plan's own objective, and rank the changes by what a dollar gains.

    Parameters
    ----------
    plan
        The plan to improve on.
    asked
        The changes; None: `changes(plan)`.
    time_limit_s
        Seconds of solving for each cluster. None: as `total_s` allows.
    total_s
        Seconds for all changes together, about.
    progress
        Called with (changes done, changes in all, name of the next change).
    options
        Further options of `helix_kit.plan` for objective ``flow``; the method is the default one.

    Returns
    -------
    pandas.DataFrame
        One row a change: change, kind, tokens_per_s (the flow, or decode tokens/s of a served plan), gain_tokens_per_s
        with the ends of its 95 % interval (gain_low, gain_high; equal for a flow), gain_percent, gap (of the flow
        planned anew), usd_per_hour (additional cost), gain_per_usd (tokens/s for each dollar per hour; for a loss, the
        tokens/s given up for each dollar saved, as a negative number) and tokens_per_s_per_usd (of the machines in
        use). First come gains that are free, then the changes that cost, the largest gain for a dollar first, then
        those without a price, then losses. The gain is against the best that was found for the unchanged cluster; the
        attribute ``base_tokens_per_s`` of the table says it, ``plan_tokens_per_s`` what this plan is worth.

    Examples
    --------
    >>> from helix_kit import Cluster, Model, plan
    >>> cluster = Cluster.model_validate({"name": "six", "nodes": [{"gpu": "L4", "count": 6}]})
    >>> six = plan(cluster, Model.preset("llama-30b"), method="proportional")
    >>> table = what_if(six, time_limit_s=1.0)
    >>> table["kind"].tolist()[-1]
    'lose'
    """
    import pandas as pd

    began = time.perf_counter()
    todo = list(changes(plan) if asked is None else asked)
    judge = Judge(plan)
    say = progress or (lambda done, of, name: None)
    base = _Answer(Change("no change", "base", plan.cluster, 0.0), [judge.own()])
    answers = [base, *(_Answer(change, []) for change in todo)]
    solved_by_s = began + total_s * (SOLVE_SHARE if judge.is_served else 1.0)
    for index, answer in enumerate(answers):
        say(max(0, index - 1), len(todo), answer.change.name)
        solve_s = time_limit_s
        if solve_s is None:
            # What a plan takes beyond its limit is taken from the later ones.
            solve_s = max(MIN_SOLVE_S, (solved_by_s - time.perf_counter()) / (len(answers) - index) - EXTRA_S)
        start = judge.own() if index == 0 else best_of(judge, base.entries, 1)[0] if base.entries else None
        _plan_anew(answer, judge, start, solve_s, options)
    losses = [answer for answer in answers if answer.change.kind == "lose"]
    if not judge.has_replicas:
        _learn_from_each_other(losses, judge)
        _learn_from_changes(base, answers[1:], judge)
    left_s = max(1.0, total_s - (time.perf_counter() - began))
    may_compare = judge.spread_over(left_s, (JUDGED + SEEDS - 1) * len(answers), SEEDS * len(answers))
    for index, answer in enumerate([*losses, *(a for a in answers if a not in losses)]):
        say(min(index, len(todo)), len(todo), answer.change.name)
        _judge(answer, judge, JUDGED if may_compare else 1)
    # What the cluster serves with a machine less, it also serves with it.
    for loss in losses:
        if loss.best is not None and (base.worth is None or loss.worth.mean > base.worth.mean):  # type: ignore[union-attr]
            base.best, base.worth = loss.best, loss.worth
    say(len(todo), len(todo), "done")
    table = pd.DataFrame([_row(answer, base, judge) for answer in answers[1:]], columns=list(_COLUMNS))
    table = table.sort_values("order", kind="stable", ignore_index=True).drop(columns="order")
    table.attrs["base_tokens_per_s"] = base.worth.mean if base.worth else 0.0
    table.attrs["plan_tokens_per_s"] = judge.worth(judge.own()).mean
    return table


_COLUMNS = ("change", "kind", "tokens_per_s", "gain_tokens_per_s", "gain_low", "gain_high", "gain_percent", "gap",
            "usd_per_hour", "gain_per_usd", "tokens_per_s_per_usd", "order")  # fmt: skip


def _plan_anew(answer: _Answer, judge: Judge, start: Entry | None, solve_s: float, options: dict[str, Any]) -> None:
    """Fill in the placements found for a cluster: planned anew, carried over, and repaired."""
    plan = judge.plan
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
    if start is not None:
        answer.entries += _carried_over(problem, start, judge, LOCAL_SHARE * solve_s)
    own = {"partial_inference": plan.partial_inference, "flow_split": plan.flow_split, "seed": plan.seed}
    try:
        solved = plan_problem(problem, read_options({**own, "time_limit_s": (1 - LOCAL_SHARE) * solve_s, **options}))
    except HelixKitError:
        return
    answer.entries.append(judge.entry(problem, solved.placement))
    answer.gap = solved.gap


def _carried_over(problem: Problem, start: Entry, judge: Judge, climb_s: float) -> list[Entry]:
    """The placement itself on this cluster, and what hill climbing and local search make of it."""
    served = judge.plan.served
    shares = bool(served and served.ease)
    entries = [
        judge.entry(problem, placement, as_planned=as_planned)
        for placement in _without_the_lost(problem, start)
        for as_planned in ((True, False) if shares else (False,))
    ]
    best = max(entries, key=judge.expected)
    names = frozenset(best.placement)
    deadline = time.perf_counter() + CLIMB_S
    for kept in (names, frozenset()):
        entries.append(judge.entry(problem, climbed(problem, best.placement, kept, deadline)))
    best = max(entries, key=judge.expected)
    entries.append(improved(judge, best, time.perf_counter() + climb_s, judge.plan.seed))
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


def _learn_from_each_other(losses: list[_Answer], judge: Judge) -> None:
    """Try the best placement of each loss for the others: the machine that is there again takes the lost one's place.

    So the loss of a fast machine costs at least as much as that of a slower one.
    """
    best = {id(answer): best_of(judge, answer.entries, 1) for answer in losses}
    for answer in losses:
        if not answer.entries:
            continue
        problem = answer.entries[0].problem
        here = set(problem.kind_of)
        for other in losses:
            for entry in best[id(other)] if other is not answer else []:
                placement = {n: span for n, span in entry.placement.items() if n in here}
                back = [n for n in here if n not in entry.problem.kind_of]
                gone = [span for n, span in entry.placement.items() if n not in here]
                placement |= {n: s for n, s in zip(back, gone) if s[1] - s[0] <= problem.max_layers(n)}
                answer.entries.append(judge.entry(problem, placement))


def _learn_from_changes(base: _Answer, others: list[_Answer], judge: Judge) -> None:
    """Try the best placement of each change without it: what it serves there as well is not what the change brings."""
    if not base.entries:
        return
    problem = base.entries[0].problem
    for answer in others:
        for entry in best_of(judge, answer.entries, 1):
            held = {n: span for n, span in entry.placement.items() if n in problem.kind_of}
            base.entries.append(judge.entry(problem, held))


def _judge(answer: _Answer, judge: Judge, count: int) -> None:
    """The placement that is worth most of those found for a cluster, and its value.

    The `count` best by expectation are compared on one request stream; the best is then measured on all of them.
    """
    chosen = best_of(judge, answer.entries, count)
    if answer.change.kind == "base":
        chosen = [judge.own(), *chosen]
    if chosen:
        answer.best = max(chosen, key=lambda entry: judge.sample(entry, 0))
        answer.worth = judge.worth(answer.best)


def _row(answer: _Answer, base: _Answer, judge: Judge) -> dict[str, Any]:
    assert base.worth is not None and base.best is not None
    change, worth, best = answer.change, answer.worth, answer.best
    if change.kind != "lose" and (worth is None or worth.mean < base.worth.mean):
        # What the present cluster carries, it carries with a machine more or a wider link, too.
        worth, best = base.worth, base.best
    if worth is None:
        worth = Worth((0.0,) * len(base.worth.samples))
    gain, low, high = worth.minus(base.worth)
    per_total_usd = None
    if best is not None:
        output = best.problem.lengths.output_tokens / best.problem.lengths.tokens
        total = cost_of(best.problem, best.flow, tokens_per_s=worth.mean / (output if judge.is_served else 1.0))
        per_total_usd = worth.mean / total.total_usd_per_hour if total.total_usd_per_hour else None
    per_usd = None
    if change.usd_per_hour:
        # For a loss: tokens/s given up (negative) for each dollar saved.
        per_usd = gain / abs(change.usd_per_hour)
    is_free_gain = change.kind == "add" and change.usd_per_hour == 0 and gain > 0
    group = {"lose": 2}.get(change.kind, 0 if per_usd is not None or is_free_gain else 1)
    return {
        "change": change.name,
        "kind": change.kind,
        "tokens_per_s": worth.mean,
        "gain_tokens_per_s": gain,
        "gain_low": low,
        "gain_high": high,
        "gain_percent": 100 * gain / base.worth.mean if base.worth.mean else float("nan"),
        "gap": answer.gap,
        "usd_per_hour": change.usd_per_hour,
        "gain_per_usd": per_usd,
        "tokens_per_s_per_usd": per_total_usd,
        "order": (group, -math.inf if is_free_gain else -(per_usd if per_usd is not None else gain)),
    }
