"""Whatever the placement: bars and labels keep apart, everything is inside, ribbons fit the bars they hang on."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from helix_kit import Cluster, Model, Plan, Problem
from helix_kit.plots import flow_graph
from helix_kit.plots.scene import Curve, Polygon, Rect, Text, text_width

LAYERS = 80


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Up to 14 machines of three kinds in one or two regions with any ranges, pipelines or not."""
    regions = draw(st.sampled_from([["local"], ["us", "eu"]]))
    nodes = [
        {"gpu": draw(st.sampled_from(["A100-40G", "L4", "T4"])), "region": draw(st.sampled_from(regions))}
        for _ in range(draw(st.integers(8, 14)))
    ]
    cluster = Cluster.model_validate(
        {
            "name": "any",
            "coordinator": {"region": regions[0]},
            "nodes": [*nodes, {"gpu": "H200-141G", "count": 2, "region": regions[0]}],
            "network": {"between_regions": {"bandwidth_gbps": 0.1, "latency_ms": 40}},
        }
    )
    model = Model.preset("llama2-70b")
    placement = {}
    for node in cluster.nodes:
        if draw(st.booleans()) or not placement:
            start = draw(st.integers(0, LAYERS - 1))
            placement[node.name] = (start, draw(st.integers(start + 1, LAYERS)))
    if draw(st.booleans()):
        middle = draw(st.integers(1, LAYERS - 1))
        placement |= {"H200-141G-0": (0, middle), "H200-141G-1": (middle, LAYERS)}
    return Plan.from_placement(Problem.of(cluster, model), placement, method="any")


@settings(max_examples=60)
@given(plans(), st.sampled_from([700.0, 1100.0]))
def test_layout(plan: Plan, width: float) -> None:
    scene = flow_graph(plan, width=width).scene
    extents: dict[float, list[tuple[float, float]]] = {}
    heights: dict[str, float] = {}
    for group in scene.groups:
        for item in group.items:
            if isinstance(item, Rect):
                assert item.x >= 0 and item.x + item.width <= width + 1e-6 and item.y + item.height <= scene.height
            elif isinstance(item, Curve | Polygon):
                assert all(0 <= x <= width and 0 <= y <= scene.height for x, y in item.points)
        if group.role != "node":
            continue
        bar = next(i for i in group.items if isinstance(i, Rect))
        label = next(i for i in group.items if isinstance(i, Text))
        wide = text_width(label.text, label.size)
        left = label.x - wide / 2 if label.anchor == "middle" else label.x
        extents.setdefault(bar.y, []).append((min(bar.x, left), max(bar.x + bar.width, left + wide)))
        heights[dict(group.data)["node"]] = bar.height
    for lane in extents.values():
        for (_, end), (begin, _) in pairwise(sorted(lane)):
            assert end <= begin + 1e-6, "bars or labels of a lane overlap"
    through: dict[str, float] = {}
    for group in scene.groups:
        if group.role == "edge":
            source = dict(group.data)["source"]
            ribbon = next(i for i in group.items if isinstance(i, Curve))
            through[source] = through.get(source, 0.0) + (ribbon.width if ribbon.width > 1 else 0.0)
    for name, height in heights.items():
        assert through.get(name, 0.0) <= height
