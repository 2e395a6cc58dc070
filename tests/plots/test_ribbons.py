"""Ribbons are as wide as their flow and meet bars where the layers are."""

from __future__ import annotations

import pytest
from scenes import curve, edges_of, nodes_of, outline

from helix_kit.plots import flow_graph


def test_ribbons_are_as_wide_as_their_flow(overlapping_plan):
    ribbons = edges_of(flow_graph(overlapping_plan).scene)
    assert ribbons.keys() == overlapping_plan.flow_edges.keys()
    widths = {edge: curve(group).width for edge, group in ribbons.items()}
    # Those that would be too thin to see are drawn wider.
    per_token = [width / overlapping_plan.flow_edges[edge] for edge, width in widths.items() if width > 1]
    assert len(per_token) >= 5 and max(per_token) == pytest.approx(min(per_token))


def test_partial_entry_meets_the_bar_where_the_layer_is(overlapping_plan):
    scene = flow_graph(overlapping_plan).scene
    bar = outline(nodes_of(scene)["A10G-0"])
    midway = curve(edges_of(scene)["V100-16G-0", "A10G-0"]).points[-1]
    assert midway[0] == pytest.approx(scene.layer_x0 + 18 * scene.layer_width, abs=2)
    assert midway[1] in (bar.y, bar.y + bar.height)
    at_start = curve(edges_of(scene)["T4-1", "A10G-0"]).points[-1]
    assert at_start[0] == pytest.approx(bar.x)
    marks = [dict(g.data) for g in scene.groups if g.role == "entry"]
    assert marks == [{"source": "V100-16G-0", "target": "A10G-0"}]
