"""Sentences about a plan: what limits it, and its summary."""

from __future__ import annotations

from helix_kit import Cluster, Model, Plan, Problem
from helix_kit.plots.formatting import format_number, limit_text, plan_summary


def test_a_plan_without_a_pipeline_has_no_limit_and_no_bound():
    problem = Problem.of(Cluster.preset("laptop"), Model.preset("SmolLM2-135M"))
    plan = Plan.from_placement(problem, {"CPU-fast-0": (0, 10)}, method="hand")
    assert limit_text(plan) == "no pipeline covers all layers"
    assert plan_summary(plan) == "hand · 0 of 4 machines carry flow"


def test_the_summary_counts_machines_and_pipelines(regions_plan):
    text = plan_summary(regions_plan)
    assert "10 of 11 machines carry flow" in text and "1 pipeline of 10 stages" in text
    assert limit_text(regions_plan) == "limited by link A100-40G-3 → L4-0"


def test_numbers_round_to_whole_ones_from_a_hundred():
    assert [format_number(v) for v in (99.94, 99.95, 1234.5, 0.01234)] == ["99.9", "100", "1,234", "0.0123"]
