"""FlowGraph on the kernel's side: its traits follow the plan, and what the page sends reaches Python."""

from __future__ import annotations

import base64

import pytest

from helix_kit import InputError, Plan
from helix_kit.widgets import FlowGraph


def drawn(graph: FlowGraph) -> set[str]:
    return {g["data"]["node"] for g in graph.scene["groups"] if g["role"] == "node"}


def test_assigning_a_plan_redraws_and_forgets_the_old_ones_marks(plan):
    graph = FlowGraph(plan, highlight=0)
    graph.set_state({"selected": "T4-1"})
    assert drawn(graph) == set(plan.placement) and len(graph.pipelines) == len(plan.pipelines)
    graph.plan = Plan.from_placement(plan.problem, {"V100-16G-0": (0, 30)}, method="hand")
    assert drawn(graph) == {"V100-16G-0"} and len(graph.pipelines) == 1
    assert graph.highlighted == [] and graph.selected == ""


def test_a_click_in_the_page_calls_the_handler(plan):
    graph, heard = FlowGraph(plan), []
    graph.on_select(heard.append)
    graph.set_state({"selected": "V100-16G-0"})
    graph.set_state({"selected": ""})
    assert heard == ["V100-16G-0", ""]


def test_highlight_takes_a_pipeline_or_names_and_refuses_others(plan):
    graph = FlowGraph(plan)
    graph.highlight(0)
    assert graph.highlighted == [stage.node for stage in plan.pipelines[0][0]]
    graph.highlight(["T4-0"])
    assert graph.highlighted == ["T4-0"]
    stages, _ = plan.pipelines[2]
    graph.highlight(stages)
    assert graph.highlighted == [stage.node for stage in stages]
    graph.highlight(None)
    assert graph.highlighted == []
    with pytest.raises(InputError, match="3 pipelines"):
        graph.highlight(3)
    with pytest.raises(InputError, match="V100-16G-0"):
        graph.highlight(["V100-16G"])
    with pytest.raises(InputError, match="auto"):
        FlowGraph(plan, theme="neon")


def test_the_mime_bundle_holds_the_widget_and_a_png(plan):
    data, metadata = FlowGraph(plan)._repr_mimebundle_()
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"]
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG") and metadata["image/png"]["width"] == 1100


def test_show_gives_the_widget_and_everything_the_page_needs_is_in_the_package(plan):
    graph = plan.show(width=900)
    assert isinstance(graph, FlowGraph) and graph.scene["width"] == 900
    assert "http" not in str(graph._esm).replace("http://www.w3.org/2000/svg", ""), "no address but SVG's name space"
    assert "url(" not in str(graph._css) and "@import" not in str(graph._css)
