"""Placements of changed clusters: what is learnt from one for another, and how the seconds are divided."""

from __future__ import annotations

import pytest

from helix_kit import Cluster, Model, Plan, Problem
from helix_kit.analysis import changes
from helix_kit.analysis.changes import Change
from helix_kit.analysis.judge import Judge, problem_on
from helix_kit.analysis.replanning import Answer, Clock, learn_from_changes, learn_from_each_other, plan_anew
from helix_kit.placement.served import Served

CLUSTER = Cluster.model_validate({"name": "seven", "nodes": [{"gpu": "L4", "count": 7}]})


@pytest.fixture
def judge() -> Judge:
    """Six machines in a row by hand, and one that is idle."""
    problem = Problem.of(CLUSTER, Model.preset("llama-30b"))
    return Judge(Plan.from_placement(problem, {f"L4-{i}": (10 * i, 10 * i + 10) for i in range(6)}, method="hand"))


def test_what_a_change_only_happened_to_find_counts_without_it():
    """A placement that was found on wider links and needs none of them is no gain of the links."""
    cluster = Cluster.model_validate({"name": "six", "nodes": [{"gpu": "L4", "count": 6}]})
    problem = Problem.of(cluster, Model.preset("llama-30b"))
    poor = {f"L4-{i}": (10 * i, 10 * i + 10) for i in range(5)} | {"L4-5": (50, 60)}
    judge = Judge(Plan.from_placement(problem, poor, method="hand"))
    base = Answer(Change("no change", "base", cluster), [judge.entry(problem, {"L4-0": (0, 10)})])
    (wide,) = (c for c in changes(judge.plan, lose=False) if c.kind == "widen")
    found = Answer(wide, [judge.entry(problem_on(problem, wide.cluster), poor)])
    learn_from_changes(base, [found], judge)
    assert max(e.flow.tokens_per_s for e in base.entries) == pytest.approx(judge.plan.flow_tokens_per_s)


def test_shares_of_the_time_are_of_what_is_left_and_the_present_cluster_gets_more():
    clock = Clock(ends_s=0.0, limit_s=None)
    assert clock.is_over and clock.solve_s(0, 5) == clock.solve_s(4, 5) == 0
    clock = Clock(ends_s=1e12, limit_s=None)
    assert clock.solve_s(0, 5) / clock.solve_s(1, 5) == pytest.approx((3 / 7) / (1 / 4), rel=1e-6)
    fixed = Clock(ends_s=0.0, limit_s=2.5)
    assert not fixed.is_over and fixed.solve_s(0, 9) == fixed.solve_s(8, 9) == fixed.plan_s(2.5) == 2.5


def test_a_change_is_planned_anew_only_where_its_share_suffices(judge, monkeypatch):
    """What a plan takes beyond its limit was measured: a share that is smaller goes into local search alone."""
    limits = []

    def planned(problem, options):
        limits.append(options.time_limit_s)
        return judge.plan

    monkeypatch.setattr("helix_kit.analysis.replanning.plan_problem", planned)
    (more,) = changes(judge.plan, widen=1, lose=False)
    clock = Clock(ends_s=1e12, limit_s=None, beyond_s=5.0)
    answer = Answer(more, [])
    plan_anew(answer, judge, judge.own(), clock, 0.2, {})
    assert limits == [] and answer.gap is None and answer.entries
    assert max(e.flow.tokens_per_s for e in answer.entries) >= judge.plan.flow_tokens_per_s
    clock.beyond_s = 0.0
    plan_anew(answer, judge, judge.own(), clock, 0.4, {})
    assert len(limits) == 1 and 0.1 <= limits[0] <= 0.4


def test_learning_stops_with_the_time_and_tries_only_what_promises_more(judge, monkeypatch):
    lost = changes(judge.plan, add=[], widen=1)
    answers = [Answer(lost[0], []), Answer(lost[0], [])]
    for answer in answers:
        problem = problem_on(judge.plan.problem, answer.change.cluster)
        held = {n: span for n, span in judge.plan.placement.items() if n in problem.kind_of}
        answer.entries.append(judge.entry(problem, held))
    counts = [len(a.entries) for a in answers]
    learn_from_each_other(answers, judge)  # neither is worth more than the other
    assert [len(a.entries) for a in answers] == counts
    base = Answer(Change("no change", "base", CLUSTER), [judge.own()])
    learn_from_changes(base, answers, judge, until_s=0.0)
    assert len(base.entries) == 2, "the most promising one alone"


def test_a_machine_that_holds_the_model_serves_beside_the_others_whatever_is_expected_of_it():
    """Two A100 in a chain far away, and a third one at home that holds the model: it adds what it serves alone."""
    nodes = [{"gpu": "A100-80G", "count": 2, "region": "far"}, {"gpu": "L4", "region": "home"}]
    network = {"between_regions": {"bandwidth_gbps": 0.05, "latency_ms": 40}}
    cluster = Cluster.model_validate(
        {"name": "two", "coordinator": {"region": "home"}, "nodes": nodes, "network": network}
    )
    problem = Problem.of(cluster, Model.preset("llama-30b"))
    chain = {"A100-80G-0": (0, 30), "A100-80G-1": (30, 60)}
    served = Served(decode_tokens_per_s=1.0, mode="offline", execution="range")
    judge = Judge(Plan.from_placement(problem, chain, method="hand", objective="served", served=served), effort=0.3)
    [more] = [c for c in changes(judge.plan, add=["A100-80G"], widen=1, lose=False) if c.name.endswith("home")]
    answer = Answer(more, [])
    plan_anew(answer, judge, judge.own(), Clock(ends_s=1e12, limit_s=None, beyond_s=5.0), 0.2, {})
    assert answer.carried.placement == {**chain, "A100-80G-2": (0, 60)}
    alone = judge.entry(problem_on(problem, more.cluster), {"A100-80G-2": (0, 60)})
    both = judge.sample(judge.own(), 0) + judge.sample(alone, 0)
    assert judge.sample(answer.carried, 0) == pytest.approx(both, rel=0.1)
