"""The swimlane picture: true to scale, complete, the same bytes each time, in every form."""

from __future__ import annotations

import itertools
import struct
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest

from helix_kit import Cluster, InputError, Model, Plan, Problem
from helix_kit.plots import flow_graph
from helix_kit.plots.machines import machines_and_streams
from helix_kit.plots.scene import Curve, Group, Polygon, Rect, Scene, Text

SVG = "{http://www.w3.org/2000/svg}"


def nodes_of(scene: Scene) -> dict[str, Group]:
    return {dict(g.data)["node"]: g for g in scene.groups if g.role == "node"}


def outline(group: Group) -> Rect:
    return next(i for i in group.items if isinstance(i, Rect) and i.stroke)


def edges_of(scene: Scene) -> dict[tuple[str, str], Group]:
    return {(dict(g.data)["source"], dict(g.data)["target"]): g for g in scene.groups if g.role == "edge"}


def curve(group: Group) -> Curve:
    return next(i for i in group.items if isinstance(i, Curve))


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


def test_ribbons_are_as_wide_as_their_flow(overlapping_plan):
    ribbons = edges_of(flow_graph(overlapping_plan).scene)
    assert ribbons.keys() == overlapping_plan.flow_edges.keys()
    widths = {edge: curve(group).width for edge, group in ribbons.items()}
    # Those that would be too thin to see are drawn wider.
    per_token = [width / overlapping_plan.flow_edges[edge] for edge, width in widths.items() if width > 1]
    assert len(per_token) >= 5 and max(per_token) == pytest.approx(min(per_token))


def test_fill_is_the_utilisation(overlapping_plan):
    for name, group in nodes_of(flow_graph(overlapping_plan).scene).items():
        full = next(i for i in group.items if isinstance(i, Rect) and i.fill and i.fill.endswith("-full"))
        through = sum(rate for (_, target), rate in overlapping_plan.flow_edges.items() if target == name)
        capacity = overlapping_plan.node_throughput_tokens_per_s[name]
        assert full.height / outline(group).height == pytest.approx(through / capacity, abs=1e-4)


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
    words = [i.text for g in scene.groups for i in g.items if isinstance(i, Text)]
    assert any("T4-0" in w and "holds no layers" in w for w in words)


def test_svg_is_valid_complete_and_repeatable(regions_plan, tmp_path):
    path = tmp_path / "plan.svg"
    text = regions_plan.to_svg(path)
    assert path.read_text(encoding="utf-8") == text == regions_plan.to_svg()
    root = ET.fromstring(text)
    assert {g.get("data-node") for g in root.iter(f"{SVG}g") if g.get("class") == "node"} == set(regions_plan.placement)
    titles = [t.text or "" for t in root.iter(f"{SVG}title")]
    assert any("A100-40G-3 → L4-0" in t and "limits the flow" in t for t in titles)
    assert "None" not in text and "nan" not in text


def test_same_bytes_whatever_the_hash_seed(tmp_path, regions_plan):
    regions_plan.save(tmp_path / "plan.json")
    code = (
        "import sys, hashlib\nfrom helix_kit import Plan\n"
        f"plan = Plan.load({str(tmp_path / 'plan.json')!r})\n"
        "sys.stdout.write(hashlib.sha256(plan.to_svg().encode() + plan.to_png()).hexdigest())"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(runs) == 1 and len(runs.pop()) == 64


def test_png_has_the_layouts_size_and_is_what_notebooks_get(overlapping_plan, tmp_path):
    png = overlapping_plan.to_png(tmp_path / "plan.png", width=800)
    assert (tmp_path / "plan.png").read_bytes() == png
    assert struct.unpack(">II", png[16:24])[0] == 1600, "two image pixels per pixel of the layout"
    data, metadata = overlapping_plan._repr_mimebundle_()
    assert data["image/png"] and metadata["image/png"]["width"] == 1100
    assert len(data["text/plain"]) < 200, "the text beside the picture is a title, not the whole plan"


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


def test_three_hundred_machines_are_merged_without_losing_flow():
    cluster = Cluster.model_validate({"name": "many", "nodes": [{"gpu": "L4", "count": 300}]})
    problem = Problem.of(cluster, Model.preset("llama2-70b"))
    placement = {f"L4-{i}": (4 * (i % 20), 4 * (i % 20) + 4) for i in range(300)}
    plan = Plan.from_placement(problem, placement, method="hand")
    machines, streams = machines_and_streams(plan)
    assert len(machines) == 20 and sorted(n for m in machines for n in m.members) == sorted(placement)
    for machine in machines:
        into = sum(s.flow for s in streams if s.target == machine.id)
        assert into == pytest.approx(plan.flow_tokens_per_s) == machine.flow
    assert len(machines_and_streams(plan, merge=False)[0]) == 300
    assert flow_graph(plan).scene.height < 500


def test_a_placement_without_a_pipeline_is_drawn_and_says_so():
    problem = Problem.of(Cluster.preset("laptop"), Model.preset("SmolLM2-135M"))
    plan = Plan.from_placement(problem, {"CPU-fast-0": (0, 10), "CPU-slow-0": (20, 30)}, method="hand")
    scene = flow_graph(plan).scene
    words = [i.text for g in scene.groups for i in g.items if isinstance(i, Text)]
    assert "no pipeline covers all layers" in words and not edges_of(scene)
    strip = next(g for g in scene.groups if g.role == "strip")
    gap = next(i for i in strip.items if isinstance(i, Rect))
    assert gap.x == pytest.approx(scene.layer_x0 + 10 * scene.layer_width)
    assert gap.width == pytest.approx(10 * scene.layer_width), "layers 10-19 are held by nobody"
