"""Proposals: every family is there, and nodes can hold what they are given."""

import pytest

import helix_kit as hk
from helix_kit.placement import Problem
from helix_kit.placement.groups import groups_of
from helix_kit.placement.watch import Watch
from helix_kit.search.candidate import Requirements
from helix_kit.search.evaluate import Evaluator
from helix_kit.search.pool import depth_capped, propose, uniform
from helix_kit.search.predictor import Predictor
from helix_kit.search.stage_program import Solving


@pytest.fixture(scope="module")
def problem():
    cluster = hk.Cluster.model_validate(
        {"name": "mixed", "nodes": [{"gpu": "A100-40G", "count": 4}, {"gpu": "L4", "count": 8}]}
    )
    return Problem.of(cluster, hk.Model.preset("llama-30b"))


def test_every_family_proposes_placements_that_nodes_can_hold(problem):
    known = hk.plan(problem.cluster, problem.model, method="swarm").placement
    solving = Solving("highs", 0, Watch(60))
    proposals = list(propose(problem, Evaluator(problem, Requirements()), [known], solving))
    assert proposals[0] == ("safe", known)
    assert {p.family for p in proposals} >= {"safe", "uniform", "program", "capped"}
    assert all(problem.holds(p.placement) for p in proposals)


def test_uniform_stages_are_equal_within_a_group(problem):
    placements = uniform(groups_of(problem), Predictor(problem), Watch(60.0))
    assert placements
    for placement in placements:
        for kind in ("A100-40G", "L4"):
            assert len({e - s for n, (s, e) in placement.items() if problem.kind_of[n] == kind}) <= 1
        assert {layer for span in placement.values() for layer in range(*span)} == set(range(problem.num_layers))


def test_capped_plans_keep_to_the_cap_that_is_asked_for(problem):
    solving = Solving("highs", 0, Watch(60))
    cap = problem.fewest_nodes
    placements = list(depth_capped(problem, Requirements(max_stages=cap), solving))
    assert len(placements) == 1
    longest = hk.Plan.from_placement(problem, dict(placements[0]), method="capped").pipelines
    assert max(len(pipeline) for pipeline, _ in longest) <= cap


def test_no_time_no_capped_plans(problem):
    assert list(depth_capped(problem, Requirements(), Solving("highs", 0, Watch(60, stop=lambda: True)))) == []
