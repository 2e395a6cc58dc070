"""Fixing the rest: edits stay, the flow is a real max flow, and small cases match exhaustive search."""

from __future__ import annotations

from itertools import product

import pytest

from helix_kit import Cluster, InfeasibleError, Model, Plan, Problem, plan
from helix_kit.analysis import fix_the_rest


def test_small_case_is_as_good_as_trying_everything():
    cluster = Cluster.model_validate({"name": "three", "nodes": [{"gpu": "L4", "count": 2}, {"gpu": "T4"}]})
    model = Model.preset("SmolLM2-135M").model_copy(update={"name": "short", "num_layers": 4, "layer_gb": 5.0})
    problem = Problem.of(cluster, model)
    start = Plan.from_placement(problem, {"L4-0": (1, 3), "T4-0": (0, 1), "L4-1": (3, 4)}, method="hand")
    spans = {
        name: [(s, e) for s in range(4) for e in range(s + 1, 5) if e - s <= problem.max_layers(name)]
        for name in ("L4-1", "T4-0")
    }
    best = max(
        problem.max_flow({"L4-0": (1, 3), "L4-1": a, "T4-0": b}).tokens_per_s
        for a, b in product(spans["L4-1"], spans["T4-0"])
    )
    made = fix_the_rest(start, ["L4-0"])
    assert made.placement["L4-0"] == (1, 3) and made.flow_tokens_per_s == pytest.approx(best)
    assert made.flow_tokens_per_s <= made.bound_tokens_per_s + 1e-6


def test_a_large_case_recovers_most_of_the_optimum():
    best = plan(Cluster.preset("single24"), Model.preset("llama2-70b"))
    edited = Plan.from_placement(best.problem, {**best.placement, "A100-40G-0": (40, 46)}, method="hand")
    made = fix_the_rest(edited, ["A100-40G-0"])
    assert made.placement["A100-40G-0"] == (40, 46) and made.method == "hand + edits"
    assert made.flow_tokens_per_s > 0.7 * best.flow_tokens_per_s > edited.flow_tokens_per_s
    independent = best.problem.max_flow(made.placement).tokens_per_s
    assert made.flow_tokens_per_s == pytest.approx(independent)


def test_a_machine_taken_out_stays_out(overlapping_plan):
    rest = {n: s for n, s in overlapping_plan.placement.items() if n != "T4-0"}
    made = fix_the_rest(Plan.from_placement(overlapping_plan.problem, rest, method="hand"), ["T4-0"])
    assert "T4-0" not in made.placement and made.flow_tokens_per_s > 0


def test_impossible_rests_are_refused():
    cluster = Cluster.model_validate({"name": "two", "nodes": [{"gpu": "H100-80G"}, {"gpu": "L40S"}]})
    problem = Problem.of(cluster, Model.preset("llama-30b"))
    stuck = Plan.from_placement(problem, {"H100-80G-0": (20, 40), "L40S-0": (30, 60)}, method="hand")
    with pytest.raises(InfeasibleError, match="cannot cover"):
        fix_the_rest(stuck, ["H100-80G-0"])


@pytest.mark.parametrize("rules", [{"flow_split": "any"}, {"partial_inference": False}])
def test_edits_go_by_the_rules_of_the_plan(overlapping_plan, rules):
    """Another placement enters requests part-way, and splits the flow, as the plan that was edited did."""
    start = Plan.from_placement(overlapping_plan.problem, overlapping_plan.placement, method="hand", **rules)
    assert start.rearranged(start.placement).flow == start.flow
    made = fix_the_rest(start, list(start.placement)[:1])
    assert (made.flow_split, made.partial_inference) == (start.flow_split, start.partial_inference)
