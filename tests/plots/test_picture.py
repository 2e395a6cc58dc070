"""A picture of a plan: what is highlighted, and which arguments are refused."""

from __future__ import annotations

import pytest
from scenes import nodes_of

from helix_kit import InputError
from helix_kit.plots import flow_graph


def test_highlighting_a_pipeline_fades_the_rest(overlapping_plan):
    stages, _ = overlapping_plan.pipelines[0]
    scene = flow_graph(overlapping_plan, highlight=0).scene
    clear = {name for name, group in nodes_of(scene).items() if not group.faded}
    assert clear == {stage.node for stage in stages} != set(overlapping_plan.placement)
    with pytest.raises(InputError, match="3 pipelines"):
        flow_graph(overlapping_plan, highlight=9)


def test_unknown_theme_is_refused(overlapping_plan):
    with pytest.raises(InputError, match="light"):
        flow_graph(overlapping_plan, theme="neon")
    assert flow_graph(overlapping_plan, theme="dark").to_svg() != flow_graph(overlapping_plan).to_svg()
