"""Invariant 4, for plans: every pipeline covers layers 0..L once, in order, on nodes that hold them."""

import pytest

import helix_kit as hk

METHODS = ("pattern", "swarm", "petals", "proportional", "parallax", "separate", "separate-plus")


@pytest.mark.parametrize("cluster", ["single24", "hetero42"])
@pytest.mark.parametrize("method", METHODS)
def test_pipelines_cover_every_layer_once(cluster, method):
    plan = hk.plan(cluster, "llama2-70b", method=method, time_limit_s=10)
    assert sum(rate for _, rate in plan.pipelines) == pytest.approx(plan.flow_tokens_per_s, abs=0.01)
    for path, rate in plan.pipelines:
        assert rate > 0
        run = [layer for stage in path for layer in range(stage.start, stage.end)]
        assert run == list(range(plan.model.num_layers))
        for stage in path:
            start, end = plan.placement[stage.node]
            assert start <= stage.start < stage.end <= end
