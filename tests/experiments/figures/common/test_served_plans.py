"""Stored served plans: what is stored is what is read, and placements and flows are those of their clusters."""

import pytest

from helix_kit import Cluster, Model, plan
from helix_kit.errors import InputError
from helix_kit.experiments.figures.common import served_plans


def test_a_stored_plan_is_the_plan(tmp_path, monkeypatch):
    path = tmp_path / "served_plans" / "any-cluster10-llama-30b.json"
    monkeypatch.setattr(served_plans, "plan_file", lambda *row: path)
    swarm = plan(Cluster.preset("cluster10"), Model.preset("llama-30b"), method="swarm", flow_split="any")
    assert not served_plans.has_plan("any", "cluster10", "llama-30b")
    assert served_plans.store_plan("any", swarm, {"seeds": [4]}) == path
    again = served_plans.served_plan("any", "cluster10", "llama-30b")
    assert (again.placement, again.flow_split) == (swarm.placement, "any")
    assert dict(again.flow_edges) == pytest.approx(dict(swarm.flow_edges), abs=5e-4)
    assert served_plans.found("any", "cluster10", "llama-30b") == {"seeds": [4]}


def test_a_plan_that_is_not_stored_is_said():
    with pytest.raises(InputError, match=r"file = 'any-single24-no-model\.json': no such plan"):
        served_plans.served_plan("any", "single24", "no-model")
