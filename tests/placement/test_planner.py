"""The planner: options as a record or as keywords, and the table of methods."""

import re

import pytest

import helix_kit as hk
from helix_kit.placement.methods import METHODS
from helix_kit.placement.planner import PlanOptions, plan_problem


@pytest.fixture(scope="module")
def problem():
    return hk.Problem.of(hk.Cluster.preset("single24"), hk.Model.preset("llama2-70b"))


def test_a_record_and_keywords_give_the_same_plan(problem):
    by_record = plan_problem(problem, PlanOptions(method="petals", seed=2, prove=False))
    by_keywords = plan_problem(problem, method="petals", seed=2, prove=False)
    assert by_record.placement == by_keywords.placement and by_record.seed == 2
    with pytest.raises(TypeError, match="not both"):
        plan_problem(problem, PlanOptions(), seed=2)


def test_options_of_methods_are_fields_of_the_record():
    assert all(set(method.options) <= set(PlanOptions.__dataclass_fields__) for method in METHODS.values())


def test_bounds_are_searched_only_when_a_proof_is_wanted(problem):
    quick = plan_problem(problem, method="petals", prove=False)
    proven = plan_problem(problem, method="petals")
    assert set(quick.bounds) == {"compute", "B1"} < set(proven.bounds)
    assert quick.placement == proven.placement
    assert proven.bound_tokens_per_s == min(proven.bounds.values()) <= quick.bound_tokens_per_s
    assert proven.flow_tokens_per_s <= proven.bound_tokens_per_s


def test_overfull_nodes_are_bounded_by_what_their_kind_may_then_hold(problem):
    plan = plan_problem(problem, method="separate")
    assert not problem.holds(plan.placement)
    assert any("more layers than their maximum" in note for note in plan.notes)


@pytest.mark.parametrize(
    ("ends", "fix"),
    [("[office, lab]", "connect the coordinator (region office)"), ("[lab, lab]", "connect more machines with each")],
)
def test_links_of_bandwidth_0_are_named_where_nothing_can_be_carried(ends, fix, tmp_path):
    path = tmp_path / "cut.yaml"
    path.write_text(
        f"name: cut\ncoordinator: {{region: office}}\nnodes: [{{gpu: L4, count: 8, region: lab}}]\n"
        f"network: {{between_regions: {{bandwidth_gbps: 1}}, links: [{{between: {ends}, bandwidth_gbps: 0}}]}}\n"
    )
    with pytest.raises(hk.InfeasibleError, match=re.escape(fix)):
        hk.plan(path, "llama-30b", time_limit_s=2)
