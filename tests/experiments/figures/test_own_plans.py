"""Our plans: their flow, their bound, and what they serve."""

import pytest
from committed import EVALUATIONS, FIGURES, speeds

from helix_kit.experiments.figures import own_plans
from helix_kit.experiments.figures.common.settings import SETTINGS, load_own_plans
from helix_kit.experiments.machinery.files import load
from helix_kit.experiments.machinery.registry import Context


def test_the_plan_for_flow_carries_most_and_stays_within_its_bound():
    table = load("own-plans", FIGURES).drop_duplicates(["setup", "model", "objective"])
    for _, part in table.groupby(["setup", "model"]):
        flow = part.set_index("objective")["flow_tokens_per_s"]
        assert flow["flow"] >= max(flow["published"], flow["served"]) - 0.01
        assert flow["flow"] <= part["bound_tokens_per_s"].min() * (1 + 1e-6)


def test_what_own_plans_serve_is_what_the_evaluation_says():
    table = load("own-plans", FIGURES).drop_duplicates(["setup", "model", "objective"])
    found = {key: v for name in EVALUATIONS for key, v in speeds(name).items()}
    names = {"published": "helix", "flow": "own flow", "served": "own served"}
    for row in table.to_dict("records"):
        values = found[row["setup"], row["model"], "offline"]
        assert row["offline_decode_tokens_per_s"] == pytest.approx(values[names[row["objective"]]], rel=1e-5)


def test_a_fast_figure_searches_for_the_plans_that_it_reads_and_for_no_others(tmp_path, monkeypatch):
    searched = []

    def record(cluster, model, *, objective, **options):
        searched.append((cluster.name, model.name, objective))
        return make_plan(cluster, model, time_limit_s=5.0)

    make_plan = own_plans.make_plan
    monkeypatch.setattr(own_plans, "make_plan", record)
    monkeypatch.setattr(own_plans, "offline", lambda setting, plan, context: 1.5)
    context = Context(fast=True, folder=tmp_path)
    plans = load_own_plans(SETTINGS["single", "llama2-70b"], context, ("flow",))
    assert set(plans) == {"flow"} and plans["flow"].flow_tokens_per_s == pytest.approx(2045.64, rel=1e-3)
    assert searched == [("single24", "llama2-70b", "flow")]
    again = load_own_plans(SETTINGS["single", "llama2-70b"], context, ("flow",))
    assert again["flow"].placement == plans["flow"].placement and len(searched) == 1
    assert context.measured == {}
