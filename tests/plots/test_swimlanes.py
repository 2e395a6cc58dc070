"""The layout of a flow graph: true to scale, complete, and marked where the flow is limited."""

from __future__ import annotations

import itertools

import pytest
from scenes import curve, edges_of, nodes_of, outline

from helix_kit import Cluster, Model, Plan, Problem
from helix_kit.plots import flow_graph
from helix_kit.plots.scene import Curve, Polygon, Rect, Text


def test_bars_are_to_scale_and_never_overlap(overlapping_plan, regions_plan):
    for plan in (overlapping_plan, regions_plan):
        scene = flow_graph(plan).scene
        bars = {name: outline(group) for name, group in nodes_of(scene).items()}
        assert bars.keys() == plan.placement.keys()
        for name, (start, end) in plan.placement.items():
            bar = bars[name]
            centre = scene.layer_x0 + scene.layer_width * (start + end) / 2
            assert bar.x + bar.width / 2 == pytest.approx(centre)
        margins = {scene.layer_width * (plan.placement[n][1] - plan.placement[n][0]) - b.width for n, b in bars.items()}
        assert max(margins) == pytest.approx(min(margins)) and 0 < min(margins) < scene.layer_width
        ordered = sorted(bars.values(), key=lambda b: (b.y, b.x))
        for a, b in itertools.pairwise(ordered):
            assert a.y + a.height <= b.y or a.x + a.width <= b.x


def test_everything_lies_inside_the_picture(overlapping_plan, regions_plan):
    for plan in (overlapping_plan, regions_plan):
        scene = flow_graph(plan, width=900).scene
        for group in scene.groups:
            for item in group.items:
                if isinstance(item, Rect):
                    assert item.x >= 0 and item.x + item.width <= 900
                    assert item.y >= 0 and item.y + item.height <= scene.height
                elif isinstance(item, Curve | Polygon):
                    assert all(0 <= x <= 900 and 0 <= y <= scene.height for x, y in item.points)
                elif isinstance(item, Text):
                    assert 0 <= item.x <= 900 and 0 <= item.y <= scene.height


def test_fill_is_the_utilisation(overlapping_plan):
    for name, group in nodes_of(flow_graph(overlapping_plan).scene).items():
        full = next(i for i in group.items if isinstance(i, Rect) and i.fill and i.fill.endswith("-full"))
        through = sum(rate for (_, target), rate in overlapping_plan.flow_edges.items() if target == name)
        capacity = overlapping_plan.node_throughput_tokens_per_s[name]
        assert full.height / outline(group).height == pytest.approx(through / capacity, abs=1e-4)


def test_min_cut_is_marked_and_nothing_else(overlapping_plan, regions_plan):
    for plan in (overlapping_plan, regions_plan):
        scene = flow_graph(plan).scene
        marked = {(n, n) for n, g in nodes_of(scene).items() if outline(g).stroke == "cut"}
        marked |= {edge for edge, g in edges_of(scene).items() if curve(g).stroke == "cut"}
        assert marked == set(plan.max_flow.min_cut)
    assert ("A100-40G-3", "L4-0") in marked, "the thin link limits this plan"


def test_regions_are_bands_around_their_machines(regions_plan):
    scene = flow_graph(regions_plan).scene
    bands = {dict(g.data)["region"]: g.items[0] for g in scene.groups if g.role == "region"}
    assert bands.keys() == {"us", "eu"}
    for name, group in nodes_of(scene).items():
        bar, band = outline(group), bands[regions_plan.cluster.region_of(name)]
        assert band.y < bar.y and bar.y + bar.height < band.y + band.height
    texts = [i.text for g in scene.groups for i in g.items if isinstance(i, Text)]
    assert any("T4-0" in w and "holds no layers" in w for w in texts)


def test_a_placement_without_a_pipeline_is_drawn_and_says_so():
    problem = Problem.of(Cluster.preset("laptop"), Model.preset("SmolLM2-135M"))
    plan = Plan.from_placement(problem, {"CPU-fast-0": (0, 10), "CPU-slow-0": (20, 30)}, method="hand")
    scene = flow_graph(plan).scene
    texts = [i.text for g in scene.groups for i in g.items if isinstance(i, Text)]
    assert "no pipeline covers all layers" in texts and not edges_of(scene)
    strip = next(g for g in scene.groups if g.role == "strip")
    gap = next(i for i in strip.items if isinstance(i, Rect))
    assert gap.x == pytest.approx(scene.layer_x0 + 10 * scene.layer_width)
    assert gap.width == pytest.approx(10 * scene.layer_width), "layers 10-19 are held by no machine"
