"""The placement editor's handlers, without a browser: every edit, its words, undo, and fixing the rest."""

from __future__ import annotations

import pytest

from helix_kit import Cluster, InputError, Model, Plan, Problem
from helix_kit.widgets import PlacementEditor
from helix_kit.widgets.placement_editor import problems


@pytest.fixture
def editor(plan: Plan) -> PlacementEditor:
    return PlacementEditor(plan, simulate=False)


def flow_of(plan: Plan, **changed: tuple[int, int] | None) -> float:
    """Max flow of the plan's placement with some ranges changed, computed outside the editor."""
    names = {name.replace("_", "-"): span for name, span in changed.items()}
    placement = {n: s for n, s in {**plan.placement, **names}.items() if s is not None}
    return plan.problem.max_flow(placement).tokens_per_s


def test_steppers_change_the_selected_machine(editor, plan):
    editor.node.value = "T4-0"
    assert (editor.first.value, editor.last.value) == (18, 29)
    editor.first.value = 20
    assert editor.plan.placement["T4-0"] == (20, 30)
    assert editor.plan.flow_tokens_per_s == pytest.approx(flow_of(plan, T4_0=(20, 30)))
    assert "against the start" in editor.verdict.text
    shown = {g["data"]["node"]: g["data"] for g in editor.graph.scene["groups"] if g["role"] == "node"}
    assert (shown["T4-0"]["start"], shown["T4-0"]["end"]) == (20, 30)


def test_a_first_layer_past_the_last_takes_it_along(editor):
    editor.node.value = "T4-1"
    editor.first.value = 15
    assert editor.plan.placement["T4-1"] == (15, 16)
    editor.last.value = 3
    assert editor.plan.placement["T4-1"] == (3, 4)


def test_clicking_a_bar_selects_it_and_dragging_changes_it(editor):
    editor.graph.set_state({"selected": "A10G-0"})
    assert editor.node.value == "A10G-0" and editor.first.value == 12
    editor.graph.set_state({"edit": {"node": "V100-16G-0", "start": 0, "end": 16, "count": 1}})
    assert editor.plan.placement["V100-16G-0"] == (0, 16) and editor.node.value == "V100-16G-0"
    assert editor.last.value == 15


def test_layers_that_nobody_holds_are_named(editor):
    editor.set_range("V100-16G-0", 0, 11)
    editor.set_range("T4-1", 0, 11)
    editor.set_range("A10G-0", 12, 30)
    assert "No machine holds layer 11." in editor.verdict.text
    assert editor.plan.flow_tokens_per_s == 0 and "Layer 11 is held by no machine." in editor.why.text
    editor.undo()
    assert "held by no machine" not in editor.verdict.text


def test_exceeded_memory_is_named_in_gb():
    problem = Problem.of(Cluster.preset("single24"), Model.preset("llama2-70b"))
    placement = {f"A100-40G-{i}": (12 * i, 12 * i + 12) for i in range(4)}
    placement |= {f"L4-{i}": (48 + 7 * i, min(80, 55 + 7 * i)) for i in range(5)}
    editor = PlacementEditor(Plan.from_placement(problem, placement, method="hand"), simulate=False)
    assert problems(editor.plan) == []
    editor.set_range("T4-0", 10, 15)
    assert "T4-0 holds 5 layers but has memory for 4 beside its KV cache: 1.5 GB too many." in editor.verdict.text


def test_undo_goes_back_step_by_step_and_start_again_can_be_undone(editor, plan):
    editor.set_range("T4-0", 20, 30)
    editor.clear("T4-1")
    assert "T4-1" not in editor.plan.placement and editor.edited == {"T4-0", "T4-1"}
    editor.undo_button.click()
    assert editor.plan.placement == {**plan.placement, "T4-0": (20, 30)} and editor.edited == {"T4-0"}
    editor.reset_button.click()
    assert editor.plan == plan and editor.reset_button.disabled and editor.fix_button.disabled
    editor.undo_button.click()
    assert editor.plan.placement["T4-0"] == (20, 30)
    editor.undo_button.click()
    assert editor.plan.placement == plan.placement and editor.undo_button.disabled


def test_a_machine_may_hold_nothing_and_get_layers_again(editor):
    editor.node.value = "T4-0"
    editor.used.value = False
    assert "T4-0" not in editor.plan.placement and editor.first.disabled
    editor.used.value = True
    assert "T4-0" in editor.plan.placement and not editor.first.disabled


def test_wrong_ranges_are_refused_and_change_nothing(editor, plan):
    for wrong in [(5, 5), (-1, 4), (20, 31)]:
        with pytest.raises(InputError, match="T4-0"):
            editor.set_range("T4-0", *wrong)
    with pytest.raises(InputError, match="did you mean"):
        editor.set_range("T4-9", 0, 3)
    assert editor.plan is plan


def test_fix_the_rest_keeps_the_edits_and_finds_more_flow(editor, plan):
    editor.set_range("T4-1", 20, 30)
    before = editor.plan.flow_tokens_per_s
    editor.fix_button.click()
    assert editor.wait(30)
    assert editor.plan.placement["T4-1"] == (20, 30)
    assert editor.plan.flow_tokens_per_s > before
    assert editor.plan.flow_tokens_per_s == pytest.approx(plan.problem.max_flow(editor.plan.placement).tokens_per_s)
    editor.undo()
    assert editor.plan.flow_tokens_per_s == before


def test_fix_the_rest_says_when_there_is_no_way():
    problem = Problem.of(
        Cluster.model_validate({"name": "two", "nodes": [{"gpu": "H100-80G"}, {"gpu": "L40S"}]}),
        Model.preset("llama-30b"),
    )
    plan = Plan.from_placement(problem, {"H100-80G-0": (0, 30), "L40S-0": (30, 60)}, method="hand")
    editor = PlacementEditor(plan, simulate=False)
    editor.set_range("H100-80G-0", 20, 40)
    editor.fix_rest()
    assert editor.wait(30) and "cannot cover" in editor.verdict.text
    assert editor.plan.placement["H100-80G-0"] == (20, 40)


def test_simulated_throughput_follows_an_edit(plan):
    problem = Problem.of(Cluster.preset("laptop"), Model.preset("SmolLM2-135M"))
    start = Plan.from_placement(problem, {"CPU-fast-0": (0, 15), "CPU-medium-0": (15, 30)}, method="hand")
    editor = PlacementEditor(start)
    assert editor.wait(60) and "decoded under full load, tokens/s: 39.8" in editor.simulated.text
    before = editor.simulated.text
    editor.set_range("CPU-slow-0", 0, 15)
    assert editor.wait(60) and editor.simulated.text != before
    editor.set_range("CPU-slow-0", 0, 14)  # its simulation is still running when the next edit stops all flow
    editor.clear("CPU-medium-0")
    assert editor.wait(60) and "decoded under full load, tokens/s: 0" in editor.simulated.text


def test_the_still_picture_is_the_edited_plan(editor):
    first = editor._repr_mimebundle_()[0]["image/png"]
    editor.clear("T4-1")
    data, _ = editor._repr_mimebundle_()
    assert data["image/png"] != first and "application/vnd.jupyter.widget-view+json" in data


def test_every_machine_of_a_large_cluster_can_be_edited():
    problem = Problem.of(
        Cluster.model_validate({"name": "many", "nodes": [{"gpu": "L4", "count": 80}]}), Model.preset("llama2-70b")
    )
    placement = {f"L4-{i}": (5 * (i % 16), 5 * (i % 16) + 5) for i in range(80)}
    editor = PlacementEditor(Plan.from_placement(problem, placement, method="hand"), simulate=False)
    editor.graph.set_state({"selected": "L4-64"})
    assert editor.node.value == "L4-64" and (editor.first.value, editor.last.value) == (0, 4)
    before = editor.plan.flow_tokens_per_s
    editor.clear("L4-64")
    assert editor.plan.flow_tokens_per_s < before and "L4-48" in editor.plan.placement
