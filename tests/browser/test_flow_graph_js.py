"""flow_graph.js in a real page, driven like a reader would, with a stand-in for the notebook's model.

The stand-in holds the traits of a real `FlowGraph`; what JavaScript saves is read back from it. The whole path
through a kernel is tested with Voila.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from helix_kit import Plan

pytest.importorskip("anywidget", reason="needs anywidget (the notebooks extra)")

from helix_kit.widgets import FlowGraph
from helix_kit.widgets.flow_graph import HERE

STAND_IN = """
window.model = (() => {
  const traits = %s, listeners = {};
  let dirty = new Set();
  const fire = (name) => (listeners["change:" + name] || []).forEach((f) => f());
  return {
    get: (name) => traits[name],
    set: (name, value, options) => {
      const changed = JSON.stringify(traits[name]) !== JSON.stringify(value);
      traits[name] = value;
      if (changed && !(options && options.silent)) { dirty.add(name); fire(name); }
    },
    save_changes: () => { for (const name of dirty) saved.push([name, traits[name]]); dirty = new Set(); },
    on: (name, f) => { (listeners[name] ||= []).push(f); },
    off: (name, f) => { listeners[name] = (listeners[name] || []).filter((g) => g !== f); },
  };
})();
window.saved = [];
const url = URL.createObjectURL(new Blob([%s], { type: "text/javascript" }));
const el = document.querySelector("#here");
import(url).then((m) => { window.stop = m.default.render({ model: window.model, el }); });
"""
TRAITS = ("scene", "themes", "theme", "pipelines", "highlighted", "selected", "search", "offsets", "editable", "edit")


@pytest.fixture
def plan(overlapping_plan: Plan) -> Plan:
    return overlapping_plan


@pytest.fixture
def show(page: Any) -> Callable[..., Any]:
    def load(graph: FlowGraph) -> Any:
        traits = {name: getattr(graph, name) for name in TRAITS}
        css = (HERE / "flow_graph.css").read_text(encoding="utf-8")
        page.set_content(f"<style>{css}</style><body style='margin:8px'><div id=here></div></body>")
        script = (HERE / "flow_graph.js").read_text(encoding="utf-8")
        page.evaluate(STAND_IN % (json.dumps(traits), json.dumps(script)))
        page.wait_for_selector("g.node")
        return page

    return load


def saved(page: Any) -> dict[str, Any]:
    """Last value of each trait that was sent to Python."""
    return dict(page.evaluate("window.saved"))


def opacity(page: Any, selector: str) -> float:
    page.wait_for_timeout(200)
    return float(page.eval_on_selector(selector, "e => getComputedStyle(e).opacity"))


def test_draws_every_machine_and_asks_nobody(show, plan, screenshots):
    page = show(FlowGraph(plan))
    names = page.eval_on_selector_all("g.node", "all => all.map(e => e.dataset.node)")
    assert sorted(names) == sorted(plan.placement)
    assert page.locator("g.edge").count() == len(plan.flow_edges)
    texts = page.eval_on_selector_all("svg text", "all => all.map(e => e.textContent)")
    assert {*plan.placement, "tiny on four", "T4 ×2"} <= set(texts)
    assert page.errors == [] and [r for r in page.requests if not r.startswith("blob:")] == []
    page.screenshot(path=screenshots / "flow-graph.png")


def test_click_selects_and_click_again_drops(show, plan):
    page = show(FlowGraph(plan))
    page.click("g.node[data-node='A10G-0']")
    assert saved(page)["selected"] == "A10G-0"
    assert "layers 12–29" in page.inner_text(".hk-panel") and "limits the flow" in page.inner_text(".hk-panel")
    page.click("g.node[data-node='A10G-0']")
    assert saved(page)["selected"] == "" and page.inner_text(".hk-panel") == ""


def test_hover_tells_flow_of_capacity_and_fades_the_rest(show, plan):
    page = show(FlowGraph(plan))
    page.hover("g.node[data-node='T4-0']")
    tip = page.inner_text(".hk-tip")
    assert "tokens/s (100%)" in tip and "KV cache" in tip
    assert opacity(page, "g.node[data-node='T4-1']") < 0.5, "T4-1 has no link to T4-0"
    assert opacity(page, "g.node[data-node='V100-16G-0']") == 1
    page.mouse.move(5, 880)
    assert opacity(page, "g.node[data-node='T4-1']") == 1 and page.is_hidden(".hk-tip")


def test_a_pipeline_is_highlighted_from_the_menu(show, plan):
    page = show(FlowGraph(plan))
    stages = [stage.node for stage in plan.pipelines[1][0]]
    page.select_option(".hk-pipeline", index=2)
    assert saved(page)["highlighted"] == stages
    page.mouse.move(5, 880)
    for name in plan.placement:
        assert (opacity(page, f"g.node[data-node='{name}']") == 1) == (name in stages)
    page.focus("g.node[data-node='V100-16G-0']")
    page.keyboard.press("Escape")
    assert saved(page)["highlighted"] == []


def test_search_counts_and_marks(show, plan):
    page = show(FlowGraph(plan))
    page.fill(".hk-search", "t4")
    assert page.inner_text(".hk-found") == "2 found"
    assert page.locator("g.node.hk-found").count() == 2 and saved(page)["search"] == "t4"


def test_dragging_moves_a_bar_with_its_ribbons(show, plan):
    page = show(FlowGraph(plan))
    ends = "all => all.map(e => e.querySelector('path').getAttribute('d'))"
    before = page.eval_on_selector_all("g.edge[data-target='T4-0']", ends)
    box = page.locator("g.node[data-node='T4-0']").bounding_box()
    page.mouse.move(box["x"] + 60, box["y"] + 8)
    page.mouse.down()
    page.mouse.move(box["x"] + 60, box["y"] + 48, steps=4)
    page.mouse.up()
    assert saved(page)["offsets"]["T4-0"] == pytest.approx(40 * 1100 / 1164, abs=2)
    assert page.locator("g.node[data-node='T4-0']").bounding_box()["y"] == pytest.approx(box["y"] + 40, abs=2)
    assert page.eval_on_selector_all("g.edge[data-target='T4-0']", ends) != before
    assert "selected" not in saved(page), "a drag is not a click"
    page.click(".hk-home")
    assert saved(page)["offsets"] == {}
    assert page.eval_on_selector_all("g.edge[data-target='T4-0']", ends) == before


def test_dragging_an_end_asks_for_a_layer_range(show, plan):
    graph = FlowGraph(plan, editable=True)
    page = show(graph)
    handle = page.locator("g.node[data-node='V100-16G-0'] .hk-handle[data-end='end']").bounding_box()
    per_layer = graph.scene["layer_width"] * 1164 / 1100
    x, y = handle["x"] + handle["width"] / 2, handle["y"] + handle["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 3 * per_layer, y, steps=5)
    page.mouse.up()
    assert saved(page)["edit"] == {"node": "V100-16G-0", "start": 0, "end": 15, "count": 1}
    # Sideways on the bar itself: the range moves as a whole, and stops at the last layer.
    box = page.locator("g.node[data-node='T4-1']").bounding_box()
    page.mouse.move(box["x"] + 100, box["y"] + 10)
    page.mouse.down()
    page.mouse.move(box["x"] + 100 + 40 * per_layer, box["y"] + 12, steps=5)
    page.mouse.up()
    assert saved(page)["edit"] == {"node": "T4-1", "start": 18, "end": 30, "count": 2}


def test_keys_reach_everything(show, plan):
    page = show(FlowGraph(plan))
    page.focus("g.node[data-node='V100-16G-0']")
    assert "V100-16G-0" in page.inner_text(".hk-tip")
    page.keyboard.press("ArrowDown")
    focused = page.evaluate("document.activeElement.dataset.node")
    assert focused != "V100-16G-0"
    page.keyboard.press("Enter")
    assert saved(page)["selected"] == focused
    whole = page.get_attribute(".hk-canvas svg", "viewBox")
    page.keyboard.press("+")
    assert page.get_attribute(".hk-canvas svg", "viewBox") != whole
    page.keyboard.press("0")
    assert page.get_attribute(".hk-canvas svg", "viewBox") == whole
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.className") == "hk-search"


def test_dark_theme_changes_the_colours(show, plan, screenshots):
    page = show(FlowGraph(plan, theme="light"))
    paper = "e => getComputedStyle(e).backgroundColor"
    light = page.eval_on_selector(".hk-flow", paper)
    page.click(".hk-theme")
    assert saved(page)["theme"] == "dark" and page.eval_on_selector(".hk-flow", paper) != light
    page.screenshot(path=screenshots / "flow-graph-dark.png")


def test_a_new_scene_replaces_the_old(show, plan):
    page = show(FlowGraph(plan))
    other = Plan.from_placement(plan.problem, {"V100-16G-0": (0, 30)}, method="hand")
    page.evaluate("scene => window.model.set('scene', scene)", FlowGraph(other).scene)
    assert page.eval_on_selector_all("g.node", "all => all.map(e => e.dataset.node)") == ["V100-16G-0"]
    assert page.errors == []
