"""What-if answers: the plan's own objective, base and change judged alike, ranked by what a dollar gains."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module

import pytest

from helix_kit import Cluster, InfeasibleError, Model, Plan, Problem, plan
from helix_kit.analysis import changes, what_if
from helix_kit.analysis.changes import Change
from helix_kit.analysis.judge import Judge, Worth, problem_on
from helix_kit.analysis.replanning import Answer
from helix_kit.placement.served import Served

HOME = {
    "name": "small",
    "coordinator": {"region": "lab"},
    "nodes": [{"gpu": "A100-40G", "count": 2, "region": "lab"}, {"gpu": "L4", "count": 5, "region": "home"}],
    "network": {"between_regions": {"bandwidth_gbps": 0.05, "latency_ms": 40}},
}


@pytest.fixture(scope="module")
def small_plan() -> Plan:
    """Five L4 and two A100 in two regions with a thin link; planned."""
    return plan(Cluster.model_validate(HOME), Model.preset("llama-30b"), time_limit_s=2)


@pytest.fixture(scope="module")
def table(small_plan):
    """The usual changes of it."""
    return what_if(small_plan, time_limit_s=0.5)


def test_a_machine_more_never_costs_and_one_less_never_gains(table):
    gain = table.set_index("kind")["gain_tokens_per_s"]
    assert (gain[["add", "widen"]] >= 0).all() and (gain["lose"] <= 0).all()
    assert gain["add"].max() > 0 > gain["lose"].min()
    assert (table["gain_low"] == table["gain_high"]).all()  # a flow is exact


def test_gains_for_a_dollar_come_first_then_what_has_no_price_then_losses(table):
    kinds = table["kind"].tolist()
    assert kinds == sorted(kinds, key=["add", "widen", "lose"].index)
    bought = table[table["kind"] == "add"]["gain_per_usd"].tolist()
    assert bought == sorted(bought, reverse=True)
    lost = table[table["kind"] == "lose"]
    assert (lost["gain_per_usd"] <= 0).all() and (lost["usd_per_hour"] < 0).all()
    row = table.set_index("change").loc["one more A100-40G in lab"]
    assert row["gain_per_usd"] == pytest.approx(row["gain_tokens_per_s"] / 1.99)


def test_the_base_is_at_least_this_plan_and_gains_are_against_it(table, small_plan):
    base = table.attrs["base_tokens_per_s"]
    assert table.attrs["plan_tokens_per_s"] == pytest.approx(small_plan.flow_tokens_per_s)
    assert base >= small_plan.flow_tokens_per_s - 1e-6
    assert (table["tokens_per_s"] - table["gain_tokens_per_s"] - base).abs().max() < 1e-6


def test_a_poor_plan_is_not_flattered_by_planning_only_the_change_anew():
    """A placement by hand that wastes half: planning again without any change gains as much as is said for none."""
    cluster = Cluster.model_validate({"name": "six", "nodes": [{"gpu": "L4", "count": 6}]})
    problem = Problem.of(cluster, Model.preset("llama-30b"))
    spans = {f"L4-{i}": (10 * i, 10 * i + 10) for i in range(6)}
    spans["L4-5"] = (40, 60) if problem.max_layers("L4-5") >= 20 else (50, 60)
    spans["L4-4"] = (40, 41)
    poor = Plan.from_placement(problem, spans, method="hand")
    same = what_if(poor, [Change("nothing", "add", cluster, 0.0)], time_limit_s=0.5)
    assert same.attrs["base_tokens_per_s"] >= poor.flow_tokens_per_s
    assert same["gain_tokens_per_s"].tolist() == [pytest.approx(0, abs=1e-3 * same.attrs["base_tokens_per_s"])]


def test_a_loss_that_leaves_no_plan_counts_as_zero():
    alone = plan(
        Cluster.model_validate({"name": "two", "nodes": [{"gpu": "A100-80G", "count": 1}, {"gpu": "T4", "count": 1}]}),
        Model.preset("llama-30b"),
        time_limit_s=1,
    )
    rows = what_if(alone, time_limit_s=0.3).set_index("change")
    assert rows.loc["one A100-80G less", "tokens_per_s"] == 0
    assert rows.loc["one A100-80G less", "gain_percent"] == pytest.approx(-100)


def test_the_machine_that_is_lost_is_the_one_that_can_be_spared():
    """Two equal machines, one of them idle: losing one of them costs nothing, whatever it is called."""
    cluster = Cluster.model_validate({"name": "pair", "nodes": [{"gpu": "H100-80G", "count": 2}]})
    problem = Problem.of(cluster, Model.preset("llama-30b"))
    one = Plan.from_placement(problem, {"H100-80G-0": (0, 60)}, method="hand")
    smaller = cluster.subset(["H100-80G-1"], "one")
    rows = what_if(one, [Change("one less", "lose", smaller, -3.2)], time_limit_s=0.3)
    assert rows["tokens_per_s"].tolist() == [pytest.approx(one.flow_tokens_per_s)]


def test_a_served_plan_is_measured_by_what_it_serves_with_intervals():
    cluster = Cluster.model_validate({"name": "three", "nodes": [{"gpu": "A100-80G"}, {"gpu": "L4", "count": 2}]})
    problem = Problem.of(cluster, Model.preset("llama-30b"))
    served = Served(decode_tokens_per_s=1.0, mode="offline", execution="range")
    mine = Plan.from_placement(problem, {"A100-80G-0": (0, 60)}, method="hand", objective="served", served=served)
    asked = changes(mine, widen=1)
    rows = what_if(mine, asked, time_limit_s=0.3, total_s=2.0)
    base = rows.attrs["base_tokens_per_s"]
    # Decode tokens, which are fewer than the tokens of the flow.
    assert 0 < rows.attrs["plan_tokens_per_s"] <= base < mine.flow_tokens_per_s
    lost = rows.set_index("change").loc["one A100-80G less"]
    assert lost["gain_tokens_per_s"] == pytest.approx(-base) and lost["gain_low"] <= -base <= lost["gain_high"]
    spare = rows.set_index("change").loc["one L4 less"]
    assert spare["gain_tokens_per_s"] <= 0


def test_progress_names_what_is_planned(small_plan):
    heard = []
    what_if(small_plan, changes(small_plan, lose=False)[:1], time_limit_s=0.3, progress=lambda *now: heard.append(now))
    assert heard[0] == (0, 1, "no change") and (0, 1, "one more A100-40G in lab") in heard
    assert heard[-1] == (1, 1, "done")


def test_losing_a_slow_machine_costs_no_more_than_losing_a_fast_one():
    """An H100 could do the work of an L4 that is lost beside it."""
    nodes = [{"gpu": "H100-80G", "count": 2}, {"gpu": "L4", "count": 3}]
    cluster = Cluster.model_validate({"name": "mixed", "nodes": nodes})
    mixed = plan(cluster, Model.preset("llama2-70b"), method="proportional")
    lost = what_if(mixed, changes(mixed, add=[], widen=1), time_limit_s=0.2).set_index("change")["tokens_per_s"]
    assert lost["one L4 less"] >= lost["one H100-80G less"]


def test_a_machine_that_costs_nothing_comes_first_and_saves_nothing():
    cluster = Cluster.model_validate(
        {"name": "own", "nodes": [{"gpu": "A100-40G", "count": 2}, {"gpu": "L4", "count": 5}], "prices": {"L4": 0}}
    )
    table = what_if(plan(cluster, "llama-30b", time_limit_s=1), time_limit_s=0.5)
    assert table["change"].tolist()[0] == "one more L4" and table["gain_tokens_per_s"][0] > 0
    assert str(table.set_index("change")["usd_per_hour"]["one L4 less"]) == "0.0"


def test_a_plan_for_vllm_is_compared_by_the_rules_of_vllm():
    cluster = Cluster.model_validate({"name": "pair", "nodes": [{"gpu": "L40S"}, {"gpu": "A6000"}]})
    made = plan(cluster, "llama3.1-8b", engine="vllm-0.15")
    judge = Judge(made)
    assert judge.has_replicas
    (bought,) = changes(made, add=["RTX4090"], widen=1, lose=False)
    problem = problem_on(made.problem, bought.cluster)
    assert problem.engine == made.engine and "vllm" in problem.profiles["RTX4090"].source
    table = what_if(made, [bought], total_s=2)
    alone = problem.throughput("RTX4090-0", problem.max_layers("RTX4090-0"))
    assert table["gain_tokens_per_s"][0] == pytest.approx(alone, rel=1e-3)


def test_without_time_changes_are_predicted_and_said_to_be(small_plan):
    """No row is missing: what a machine more brings is not known, one less costs at most the flow through it."""
    table = what_if(small_plan, total_s=1e-6)
    assert table["is_predicted"].all() and table["gain_low"].isna().all() and table["gap"].isna().all()
    by_kind = table.groupby("kind")["gain_tokens_per_s"]
    assert by_kind.get_group("add").isna().tolist() == [True, True]
    base = table.attrs["base_tokens_per_s"]
    assert base >= small_plan.flow_tokens_per_s and (by_kind.get_group("lose") >= -base).all()


class CountedTime:
    """A clock on which each question takes 10 ms."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def perf_counter(self) -> float:
        self.now_s += 0.01
        return self.now_s


@pytest.mark.parametrize(("run_s", "measured"), [(0.01, 6), (1.0, 1), (4.0, 0)])
def test_simulations_end_with_the_time_whatever_one_takes(monkeypatch, run_s, measured):
    """On a large cluster a run takes seconds: as many changes are simulated as fit, the others are predicted."""
    cluster = Cluster.model_validate({"name": "three", "nodes": [{"gpu": "A100-80G", "count": 2}, {"gpu": "L40S"}]})
    problem = Problem.of(cluster, Model.preset("llama3.1-8b"))
    served = Served(decode_tokens_per_s=1.0, mode="offline", execution="range")
    mine = Plan.from_placement(problem, {"A100-80G-0": (0, 32)}, method="hand", objective="served", served=served)
    clock, runs = CountedTime(), []

    def simulated(self: Judge, entry: object, seed: int) -> float:
        clock.now_s += run_s
        runs.append(seed)
        return self.expected(entry)

    def no_plan(*_: object) -> Plan:
        raise InfeasibleError("only what is carried over counts here")

    for module in ("judge", "repair", "replanning", "what_if"):
        monkeypatch.setattr(import_module(f"helix_kit.analysis.{module}"), "time", clock)
    monkeypatch.setattr("helix_kit.analysis.replanning.plan_problem", no_plan)
    monkeypatch.setattr(Judge, "_simulated", simulated)
    asked = changes(mine, add=["L4", "L40S", "A100-80G", "H100-80G"], lose=True)
    total_s = 20.0
    table = what_if(mine, asked, total_s=total_s)
    assert len(table) == len(asked) == 7
    assert (~table["is_predicted"]).sum() >= measured
    if run_s > 1:
        assert table["is_predicted"].any() and table["gain_low"].isna().sum() == table["is_predicted"].sum()
    # What is simulated whatever it takes: this plan twice to see what a run takes, then the present cluster.
    always = run_s * (2 + 2 * 2 + 3)
    assert clock.now_s <= max(1.1 * total_s + 2, total_s / 2 + always + 2)
    assert (table[table["kind"] == "lose"]["gain_tokens_per_s"] <= 0).all()


def test_a_predicted_gain_is_counted_from_the_best_that_is_predicted_without_the_change(small_plan):
    """The plan serves the most, but another placement is expected to serve more: that is no gain of a wider link."""

    class Known:
        """A judge that knows what is expected of two placements, and what they serve."""

        is_served, compiled_s = True, 0.0

        def __init__(self) -> None:
            own = Judge(small_plan).own()
            self.plan_entry, self.other = own, replace(own, placement={**own.placement})
            self.wide = replace(self.other)

        def own(self):
            return self.plan_entry

        def expected(self, entry):
            return 100.0 if entry is self.plan_entry else 130.0

        def sample(self, entry, seed):
            return 110.0 if entry is self.plan_entry else 90.0

        def worth(self, entry):
            return Worth((self.sample(entry, 0),) * 3)

        def spread_over(self, *_):
            return True

        def ends_by(self, *_):
            return False

    judge = Known()
    [wide] = [c for c in changes(small_plan, add=[], lose=False) if c.kind == "widen"]
    base = Answer(Change("no change", "base", small_plan.cluster), [judge.own(), judge.other])
    answer = Answer(wide, [judge.wide])
    judge_all = import_module("helix_kit.analysis.what_if")._judge_all
    judge_all([base, answer], judge, 1.0, lambda index, name: None, is_bounded=True)
    assert base.best is judge.plan_entry and answer.is_predicted
    assert answer.worth == base.worth
