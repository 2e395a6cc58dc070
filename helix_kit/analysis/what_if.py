"""What a change of the cluster would bring, by the objective of the plan that is there.

Each cluster, the present one too, is planned anew for the same seconds, and the plan that is there is carried over and
repaired by hill climbing. All these placements are judged alike (`helix_kit.analysis.judge`). A placement of a smaller
cluster counts for the larger ones as well, so that a machine more never costs and a machine less never gains.

The seconds are divided by what was measured (`helix_kit.analysis.replanning`, `Judge.spread_over`). Changes for which
they do not suffice are predicted, and said to be.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from helix_kit._deprecation import renamed_keywords
from helix_kit.analysis.changes import Change, changes
from helix_kit.analysis.cost import cost_of
from helix_kit.analysis.judge import RUNS_SHARE, SEEDS, Entry, Judge, Worth, best_of
from helix_kit.analysis.replanning import Answer, Clock, learn_from_changes, learn_from_each_other, plan_anew
from helix_kit.placement.plan import Plan

if TYPE_CHECKING:
    import pandas as pd

Progress = Callable[[int, int, str], None]
"""Called with (changes done, changes in all, name of the next change)."""
TOTAL_S = 16.0
"""Seconds for all changes together, when nothing else is said."""
SOLVE_SHARE = 0.5
"""Share of these seconds for planning where placements are simulated as well."""
LEARN_SHARE = 0.2
"""Share of the seconds, at most, in which placements found for one cluster are tried on the others."""
JUDGED = 2
"""Placements of each cluster that are judged: those that are expected to be worth most. One, where runs take long."""


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
        Seconds for all changes together. On a large cluster these may not suffice for all of them, see `is_predicted`.
        With a `time_limit_s`, which makes no promise for all, the seconds of the simulations.
    progress
        Called with (changes done, changes in all, name of the next change).
    options
        Further options of `helix_kit.plan` for objective ``flow``; the method is the default one.

    Returns
    -------
    pandas.DataFrame
        One row a change: change, kind, tokens_per_s (the flow, or decode tokens/s of a served plan), gain_tokens_per_s
        with the ends of its 95 % interval (gain_low, gain_high; equal for a flow), gain_percent, gap (of the flow
        planned anew; empty where there was no time for that), is_predicted (whether the time was over before the change
        was planned or simulated; it then has no interval), usd_per_hour (additional cost), gain_per_usd (tokens/s for
        each dollar per hour; for a loss, the tokens/s given up for each dollar saved, as a negative number) and
        tokens_per_s_per_usd (of the machines in use). First come gains that are free, then the changes that cost, the
        largest gain for a dollar first, then those without a price, then losses. The gain is against the best that was
        found for the unchanged cluster; the attribute ``base_tokens_per_s`` of the table says it,
        ``plan_tokens_per_s`` what this plan is worth.

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
    base = Answer(Change("no change", "base", plan.cluster, 0.0), [judge.own()])
    answers = [base, *(Answer(change, []) for change in todo)]
    losses = [answer for answer in answers if answer.change.kind == "lose"]
    planning_s = total_s * (SOLVE_SHARE if judge.is_served else 1.0)
    learning_s = min(LEARN_SHARE * planning_s, _seconds_of_a_flow(judge) * (len(losses) ** 2 + len(todo)))
    clock = Clock(began + planning_s - learning_s, time_limit_s)
    for index, answer in enumerate(answers):
        say(max(0, index - 1), len(todo), answer.change.name)
        if index and clock.is_over:
            answer.is_predicted = True
            continue
        start = next(iter(best_of(judge, base.entries, 1)), judge.own())
        plan_anew(answer, judge, start, clock, clock.solve_s(index, len(answers)), options)
    if not judge.has_replicas:
        until_s = math.inf if time_limit_s is not None else began + planning_s
        learn_from_changes(base, answers[1:], judge, until_s)
        learn_from_each_other(losses, judge, until_s)
    left_s = max(1.0, total_s - (time.perf_counter() - began))
    _judge_all(answers, judge, left_s, lambda index, name: say(index, len(todo), name), is_bounded=time_limit_s is None)
    # What the cluster serves with a machine less, it also serves with it.
    for loss in losses:
        assert base.worth is not None
        if loss.best is not None and loss.worth is not None and loss.worth.mean > base.worth.mean:
            base.best, base.worth = loss.best, loss.worth
    say(len(todo), len(todo), "done")
    table = pd.DataFrame([_row(answer, base, judge) for answer in answers[1:]], columns=list(_COLUMNS))
    table = table.sort_values("order", kind="stable", ignore_index=True).drop(columns="order")
    table.attrs["base_tokens_per_s"] = base.worth.mean if base.worth else 0.0
    table.attrs["plan_tokens_per_s"] = judge.worth(judge.own()).mean
    return table


def _seconds_of_a_flow(judge: Judge) -> float:
    """Seconds that a flow of the plan's placement takes, with what is expected of it."""
    began = time.perf_counter()
    judge.expected(judge.entry(judge.plan.problem, judge.plan.placement))
    return time.perf_counter() - began


def _judge_all(
    answers: Sequence[Answer], judge: Judge, left_s: float, say: Callable[[int, str], None], *, is_bounded: bool
) -> None:
    """The value of each cluster: of the present one first, then of the changes that are expected to be worth most.

    With `is_bounded`, changes for which `left_s` does not suffice are predicted: worth as much more or less than the
    present cluster as expected.
    """
    base, changed = answers[0], answers[1:]
    began = time.perf_counter()
    runs = (JUDGED + SEEDS) * len(answers)  # one more for the placement that was carried over
    count = JUDGED if judge.spread_over(RUNS_SHARE * left_s, runs, SEEDS * len(answers)) else 1
    deadline_s = began + left_s + judge.compiled_s if is_bounded else math.inf
    say(0, base.change.name)
    _judge(base, judge, count)
    assert base.worth is not None and base.best is not None
    # Expectations are compared with expectations: what is expected most of the present cluster, not what served most.
    present = next(iter(best_of(judge, base.entries, 1)), base.best)
    best = {id(answer): best_of(judge, answer.entries, 1) for answer in changed}
    expected = {id(answer): judge.expected(best[id(answer)][0]) if best[id(answer)] else 0.0 for answer in changed}
    order = sorted(changed, key=lambda answer: (answer.change.kind == "lose", -expected[id(answer)]))
    for index, answer in enumerate(order):
        say(index, answer.change.name)
        if not answer.is_predicted and (not best[id(answer)] or judge.ends_by(deadline_s, SEEDS + count)):
            _judge(answer, judge, count)
            continue
        answer.is_predicted = True
        share = _share_expected(answer, best[id(answer)], present, judge)
        answer.worth = Worth(tuple(share * sample for sample in base.worth.samples))
        answer.best = best[id(answer)][0] if best[id(answer)] else None


def _share_expected(answer: Answer, found: list[Entry], base: Entry, judge: Judge) -> float:
    """What a changed cluster is expected to be worth, as a share of what the present one is expected to be worth."""
    now = judge.expected(base)
    if now <= 0:
        return 1.0
    if answer.change.kind != "lose":
        return max(1.0, judge.expected(found[0]) / now) if found else 1.0
    if found:
        return min(1.0, judge.expected(found[0]) / now)
    here = {node.name for node in answer.change.cluster.nodes}
    gone = sum(base.flow.through(name) for name in base.placement if name not in here)
    return max(0.0, 1 - gone / base.flow.tokens_per_s)


_COLUMNS = ("change", "kind", "tokens_per_s", "gain_tokens_per_s", "gain_low", "gain_high", "gain_percent", "gap",
            "is_predicted", "usd_per_hour", "gain_per_usd", "tokens_per_s_per_usd", "order")  # fmt: skip


def _judge(answer: Answer, judge: Judge, count: int) -> None:
    """The placement that is worth most of those found for a cluster, and its value.

    The `count` best by expectation are compared on one request stream; the best is then measured on all of them.
    """
    chosen = best_of(judge, answer.entries, count)
    if answer.change.kind == "base":
        chosen = [judge.own(), *chosen]
    elif judge.is_served and answer.carried is not None and answer.carried not in chosen:
        # What is expected of different shapes is less certain than that this serves about as much as before, or more.
        chosen.append(answer.carried)
    if chosen:
        answer.best = max(chosen, key=lambda entry: judge.sample(entry, 0))
        answer.worth = judge.worth(answer.best)


def _row(answer: Answer, base: Answer, judge: Judge) -> dict[str, Any]:
    assert base.worth is not None and base.best is not None
    change, worth, best = answer.change, answer.worth, answer.best
    if change.kind != "lose" and (worth is None or worth.mean < base.worth.mean):
        # What the present cluster carries, it carries with a machine more or a wider link, too.
        worth, best = base.worth, base.best
    if worth is None:
        worth = Worth((0.0,) * len(base.worth.samples))
    gain, low, high = worth.minus(base.worth)
    if answer.is_predicted:
        low = high = float("nan")
    tokens_per_s = worth.mean
    if answer.is_predicted and not answer.entries and change.kind != "lose":
        gain = tokens_per_s = float("nan")  # nothing was found in time, which is no gain of 0
    per_total_usd = None
    if best is not None:
        output = best.problem.lengths.output_tokens / best.problem.lengths.tokens
        total = cost_of(best.problem, best.flow, tokens_per_s=worth.mean / (output if judge.is_served else 1.0))
        per_total_usd = worth.mean / total.total_usd_per_hour if total.total_usd_per_hour else None
    per_usd = None
    if change.usd_per_hour and not math.isnan(gain):
        # For a loss: tokens/s given up (negative) for each dollar saved.
        per_usd = gain / abs(change.usd_per_hour)
    is_free_gain = change.kind == "add" and change.usd_per_hour == 0 and gain > 0
    group = {"lose": 2}.get(change.kind, 0 if per_usd is not None or is_free_gain else 1)
    return {
        "change": change.name,
        "kind": change.kind,
        "tokens_per_s": tokens_per_s,
        "gain_tokens_per_s": gain,
        "gain_low": low,
        "gain_high": high,
        "gain_percent": 100 * gain / base.worth.mean if base.worth.mean else float("nan"),
        "gap": answer.gap,
        "is_predicted": answer.is_predicted,
        "usd_per_hour": change.usd_per_hour,
        "gain_per_usd": per_usd,
        "tokens_per_s_per_usd": per_total_usd,
        "order": (
            group,
            -math.inf if is_free_gain else -(per_usd if per_usd is not None else 0.0 if math.isnan(gain) else gain),
        ),
    }
