"""The table of a comparison prints on a page, and stays a pandas frame."""

from __future__ import annotations

import pandas as pd
import pytest

import helix_kit as hk
from helix_kit.analysis.comparison import Comparison
from helix_kit.scheduling import Policy


@pytest.fixture(scope="module")
def problem() -> hk.Problem:
    cluster = hk.Cluster.model_validate({"name": "six", "nodes": [{"gpu": "L4", "count": 6}]})
    return hk.Problem.of(cluster, hk.Model.preset("llama-30b"))


@pytest.fixture(scope="module")
def plan(problem) -> hk.Plan:
    return hk.Plan.from_placement(problem, {f"L4-{i}": (10 * i, 10 * i + 10) for i in range(6)}, method="hand")


@pytest.fixture(scope="module")
def load() -> hk.Workload:
    return hk.Workload.constant(rate_per_s=0.5, duration_s=8, input_tokens=50, output_tokens=4)


def compare(plans, load, **more) -> Comparison:
    return hk.compare(plans, load, duration_s=30, **more)


def test_it_prints_names_and_rounded_numbers(plan, load):
    table = compare({"mine": plan}, {"short": load}, policies=["helix", "random"])
    head, *rows = str(table).splitlines()
    assert "decode tokens/s" in head and "problem" not in head and len(rows) == 2
    assert rows[0].split()[:3] == ["mine", "helix", "short"] and rows[0].endswith("4 of 4")
    assert max(len(line) for line in [head, *rows]) < 160
    assert table._repr_html_().count("<tr>") == 3 and "<th>plan</th>" in table._repr_html_()
    assert repr(table) == str(table)


def test_what_is_cut_out_is_a_plain_frame(plan, load):
    table = compare([plan], load)
    assert isinstance(table, pd.DataFrame)
    assert type(table[["plan", "policy"]]) is pd.DataFrame and "hand" in repr(table[["plan"]])
    assert type(table[table["finished"] > 0]) is pd.DataFrame
    assert "hand" in repr(table.T) and "hand" in Comparison(table[["plan"]])._repr_html_()


def test_a_problem_has_its_column(problem, load):
    gappy = hk.Plan.from_placement(problem, {"L4-0": (0, 10)}, method="gap")
    text = str(compare([gappy], load))
    assert "problem" in text.splitlines()[0] and "expected a plan that carries flow" in text


def test_plans_are_called_by_what_tells_them_apart(problem, plan, load, tmp_path):
    other = hk.Cluster.model_validate({"name": "other", "nodes": [{"gpu": "L4", "count": 6}]})
    moved = hk.Plan.from_placement(hk.Problem.of(other, plan.model), plan.placement, method="hand")
    renamed = plan.model_copy(update={"method": "by me"})
    assert compare([plan, moved, renamed], load)["plan"].tolist() == ["hand on six", "hand on other", "by me"]
    plan.save(tmp_path / "first.json")
    moved.save(tmp_path / "second.json")
    paths = [tmp_path / "first.json", str(tmp_path / "second.json")]
    assert compare(paths, load)["plan"].tolist() == ["first", "second"]
    assert compare(plan, load)["plan"].tolist() == ["hand"]
    many = {"a": plan, "b": "proportional"}
    assert compare(many, load, cluster=problem.cluster, model=problem.model)["plan"].tolist() == ["a", "b"]


def test_workloads_are_called_by_their_source(plan, load):
    again = hk.Workload.poisson(rate_per_s=0.5, duration_s=8, input_tokens=50, output_tokens=4)
    assert compare(plan, [load, again, load])["workload"].tolist() == ["constant 1", "poisson, seed 0", "constant 2"]


class Counting(Policy):
    name = "counting"

    def __init__(self, pipelines):
        self.pipelines, self.routed = pipelines, 0

    def route(self, request, view):
        self.routed += 1
        return self.pipelines[0][0]


def test_policies_are_called_by_their_name_and_each_run_has_a_fresh_one(plan, load):
    mine = Counting(plan.pipelines)
    table = compare([plan, plan], load, policies=["shortest-queue", Counting, mine])
    assert table["policy"].tolist() == ["shortest-queue", "counting 1", "counting 2"] * 2
    assert table["finished"].tolist() == [4] * 6
    assert mine.routed == 0
    assert "object at" not in str(table)
    assert compare(plan, load, policies="helix")["policy"].tolist() == ["helix"]


@pytest.mark.parametrize(
    ("plans", "policies", "words"),
    [
        ([3], "helix", "expected a plan, a file or the name of a method"),
        (3, "helix", "expected a list"),
        ([], "helix", "at least one"),
        (["absent.json"], "helix", "no such file"),
        (["pattern"], "helix", "need `cluster` and `model`"),
        (["pattern"], "helx", "did you mean helix"),
        (["pattern"], [4], "not an object of int"),
    ],
)
def test_what_cannot_be_compared_is_told(load, plans, policies, words):
    with pytest.raises(hk.InputError, match=words):
        compare(plans, load, policies=policies)
