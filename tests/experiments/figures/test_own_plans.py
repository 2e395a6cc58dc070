"""Our plans: their flow, their bound, and what they serve."""

import pandas as pd
import pytest
from committed import EVALUATIONS, FIGURES, speeds

from helix_kit.experiments.figures import own_plans
from helix_kit.experiments.figures.common.published import STREAM_SEEDS, offline_requests
from helix_kit.experiments.figures.common.served_plans import served_plan
from helix_kit.experiments.figures.common.settings import SETTINGS, load_own_plans
from helix_kit.experiments.figures.common.simulated import Outcome
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
    for row in table[table["objective"].isin(names)].to_dict("records"):
        values = found[row["setup"], row["model"], "offline"]
        assert row["offline_decode_tokens_per_s"] == pytest.approx(values[names[row["objective"]]], rel=1e-5)


def test_a_fast_figure_searches_for_the_plans_that_it_reads_and_for_no_others(tmp_path, monkeypatch):
    searched = []

    def record(cluster, model, *, objective, **options):
        searched.append((cluster.name, model.name, objective))
        return make_plan(cluster, model, time_limit_s=5.0)

    make_plan = own_plans.make_plan
    monkeypatch.setattr(own_plans, "make_plan", record)
    monkeypatch.setattr(own_plans, "served_values", lambda simulations, context: {own_plans.OFFLINE: 1.5})
    context = Context(fast=True, folder=tmp_path)
    plans = load_own_plans(SETTINGS["single", "llama2-70b"], context, ("flow",))
    assert set(plans) == {"flow"} and plans["flow"].flow_tokens_per_s == pytest.approx(2045.64, rel=1e-3)
    assert searched == [("single24", "llama2-70b", "flow")]
    again = load_own_plans(SETTINGS["single", "llama2-70b"], context, ("flow",))
    assert again["flow"].placement == plans["flow"].placement and len(searched) == 1
    assert context.measured == {}


def test_a_full_figure_takes_the_stored_plan_that_serves_most_with_its_flow(tmp_path, monkeypatch):
    monkeypatch.setattr(own_plans, "make_plan", lambda *_, **__: pytest.fail("a search ran"))
    monkeypatch.setattr(own_plans, "served_values", lambda simulations, context: {own_plans.OFFLINE: 1.5})
    setting, stored = SETTINGS["single", "llama-30b"], served_plan("offline", "single24", "llama-30b")
    part = own_plans.own_plan_part(Context(folder=tmp_path), setting, "served")
    assert {row.node: (row.start, row.end) for row in part.itertuples()} == stored.placement
    assert part["flow_tokens_per_s"].iloc[0] == pytest.approx(stored.flow_tokens_per_s)
    plans = load_own_plans(setting, Context(folder=FIGURES))
    assert list(plans) == ["flow", "served"]
    assert plans["served"].placement == stored.placement and plans["served"].flow == stored.flow


def test_the_fair_base_and_missed_latencies_stand_beside_our_plans(tmp_path, monkeypatch):
    """With metrics that are made up: the table's columns and rows are those of the comparison."""
    setting = SETTINGS["geo", "llama2-70b"]
    plan = served_plan("offline", "geo24", "llama2-70b")
    part = [{"setup": "geo", "model": "llama2-70b", "objective": "served", "node": node, "start": start, "end": end,
             "ease": "{}", own_plans.OFFLINE: 240.0, "prompt_latency_s": 5.0, "decode_latency_s": 1.0}
            for node, (start, end) in plan.placement.items()]  # fmt: skip
    monkeypatch.setattr(own_plans, "SETTINGS", {("geo", "llama2-70b"): setting})
    monkeypatch.setattr(own_plans, "OBJECTIVES", ("served",))
    monkeypatch.setattr(own_plans, "own_plan_part", lambda context, setting, objective: pd.DataFrame(part))

    def outcome(simulations, context):
        seed = next(s for s in STREAM_SEEDS if simulations[0].workload is offline_requests(s))
        seconds = {f"{phase}_latency_{q}_s": 2.0 for phase in ("prompt", "decode") for q in ("avg", "p95")}
        return Outcome({"decode_tokens_per_s": 100.0 + seed, **seconds}, {})

    monkeypatch.setattr(own_plans, "simulated", outcome)
    table = own_plans.own_plans(Context(folder=tmp_path)).drop_duplicates("objective").set_index("objective")
    assert list(table.index) == ["published", "fair base", "served, first split", "served"]
    assert table.loc["published", "paper_tokens_per_s"] == 98.0
    assert table.loc["fair base", own_plans.OFFLINE] == 100.0
    assert table.loc["fair base", "six_streams_tokens_per_s"] == 102.5
    assert table.loc["served", "missed"] == "prompt: 5.00 s beside 2.00 s" and table.loc["fair base", "missed"] == ""
    assert table.loc["fair base", "flow_tokens_per_s"] >= table.loc["published", "flow_tokens_per_s"] - 0.01
