"""Placements of parts side by side, each holding the whole model."""

import pytest

import helix_kit as hk
from helix_kit.placement import Problem
from helix_kit.placement.groups import groups_of
from helix_kit.placement.watch import Watch
from helix_kit.search.predictor import Predictor
from helix_kit.search.side_by_side import side_by_side
from helix_kit.search.stage_program import Solving


@pytest.fixture(scope="module")
def problem():
    return Problem.of(hk.Cluster.preset("single24"), hk.Model.preset("llama-30b"))


def covered(placement, nodes):
    return {layer for n in nodes for layer in range(*placement[n])}


def test_parts_hold_the_model_alone(problem):
    solving = Solving("highs", 0, Watch(600))
    found = list(side_by_side(groups_of(problem), Predictor(problem), solving))
    assert {family for family, _ in found} == {"parallel", "apart"}
    everything = set(range(problem.num_layers))
    for family, placement in found:
        assert all(e - s <= problem.max_layers(n) for n, (s, e) in placement.items())
        by_kind = {}
        for n in placement:
            by_kind.setdefault(problem.kind_of[n], []).append(n)
        alone = [kind for kind, nodes in by_kind.items() if covered(placement, nodes) == everything]
        assert alone
        if family == "apart":
            assert sorted(alone) == sorted(set(problem.kind_of.values()))
