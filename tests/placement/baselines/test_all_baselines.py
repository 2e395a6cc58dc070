"""Every baseline makes a plan: all layers held, within memory, below every bound."""

import pytest

import helix_kit as hk

METHODS = ("swarm", "petals", "proportional", "parallax", "separate", "separate-plus")


@pytest.mark.parametrize("cluster", ["single24", "geo24", "hetero42"])
@pytest.mark.parametrize("method", METHODS)
def test_every_baseline_is_a_plan_under_every_bound(cluster, method):
    plan = hk.plan(cluster, "llama2-70b", method=method)
    assert {layer for span in plan.placement.values() for layer in range(*span)} == set(range(80))
    assert 0 < plan.flow_tokens_per_s <= min(plan.bounds.values())
    if not method.startswith("separate"):
        assert all(e - s <= plan.problem.max_layers(n) for n, (s, e) in plan.placement.items())
