"""The cluster editor's handlers, without a browser: the table, solving with Stop, links that answer live, YAML."""

from __future__ import annotations

import math
import threading
import time

import pytest

import helix_kit as hk
from helix_kit import Cluster, Model, Problem
from helix_kit.errors import InputError
from helix_kit.metrics import SLO
from helix_kit.placement.served import Served
from helix_kit.plots.formatting import format_number, plan_summary
from helix_kit.widgets import ClusterEditor, cluster_editor


@pytest.fixture
def editor() -> ClusterEditor:
    cluster = Cluster.model_validate(
        {
            "name": "small",
            "nodes": [{"gpu": "A100-40G", "count": 3, "region": "us"}, {"gpu": "L4", "count": 4, "region": "eu"}],
            "network": {"between_regions": {"bandwidth_gbps": 1.0, "latency_ms": 40}},
        }
    )
    return ClusterEditor(cluster, "llama-30b")


def solved(editor: ClusterEditor) -> ClusterEditor:
    editor.limit.value = 10
    editor.solve_button.click()
    assert editor.wait(60)
    return editor


def test_table_shows_the_cluster_and_describes_it_back(editor):
    assert [(r.gpu.value, r.count.value, r.region.value) for r in editor.rows] == [
        ("A100-40G", 3, "us"),
        ("L4", 4, "eu"),
    ]
    assert editor.between_gbps.value == 1.0
    original = editor.cluster()
    editor.rows[1].count.value = 6
    changed = editor.cluster()
    assert changed.kind_counts == {"A100-40G": 3, "L4": 6} and changed.coordinator == original.coordinator
    assert changed.network.between_regions == original.network.between_regions
    editor.rows[1].count.value = 4
    assert editor.cluster().nodes == original.nodes
    assert "press Solve" in editor.status.text


def test_solve_draws_explains_and_tells_value_bound_and_gap(editor):
    solved(editor)
    assert editor.plan is not None and editor.plan.flow_tokens_per_s > 0
    assert editor.graph is not None and editor.graph.plan is editor.plan
    assert "value" in editor.status.text and "bound" in editor.status.text and "gap" in editor.status.text
    assert "KV caches" in editor.why.text and not editor.solve_button.disabled and editor.stop_button.disabled
    before = editor.plan
    editor.add.click()
    editor.rows[-1].gpu.value, editor.rows[-1].region.value = "A100-40G", "us"
    assert editor.plan is before, "nothing is solved before Solve is pressed"
    solved(editor)
    assert editor.plan.cluster.kind_counts["A100-40G"] == 4
    assert editor.plan.flow_tokens_per_s > before.flow_tokens_per_s


def test_rows_can_be_removed(editor):
    editor.rows[1].remove.click()
    assert editor.cluster().kind_counts == {"A100-40G": 3}


def test_a_link_answers_at_once_with_the_same_placement(editor):
    solved(editor)
    placement, before = dict(editor.plan.placement), editor.plan.flow_tokens_per_s
    editor.between_gbps.value = 0.001
    editor.within_gbps.value = 0.002
    assert editor.plan.placement == placement and editor.plan.flow_tokens_per_s < before
    assert "same placement over these links" in editor.status.text
    assert editor.plan.cluster.network.within_region.bandwidth_gbps == pytest.approx(0.002)
    assert editor.graph.plan is editor.plan


def test_a_link_answers_by_the_rules_of_the_plan(editor):
    solved(editor)
    rules = {"flow_split": "any", "partial_inference": False}
    editor.show(editor.plan.from_placement(editor.plan.problem, editor.plan.placement, method="hand", **rules))
    editor.between_gbps.value = 0.001
    assert (editor.plan.flow_split, editor.plan.partial_inference) == ("any", False)


def test_a_model_that_does_not_fit_gets_the_shortfall_and_a_remedy(editor):
    editor.model.value = Model.preset("llama2-70b")
    editor.solve_button.click()
    assert "holds at most" in editor.status.text and "Smallest change" in editor.status.text and editor.plan is None


def test_an_empty_table_and_a_broken_region_are_told_apart(editor):
    for row in editor.rows:
        row.count.value = 0
    editor.solve_button.click()
    assert "nodes" in editor.status.text and editor.plan is None
    editor.rows[0].count.value, editor.rows[0].region.value = 3, "no such name!"
    editor.solve_button.click()
    assert "region" in editor.status.text and editor.plan is None


def test_stop_ends_a_solve_and_keeps_the_best_plan(editor, monkeypatch):
    from helix_kit.planning import plan as real

    def slow(cluster, model, *, progress, stop, **options):
        progress(0.1, 5.0, 10.0, "stub of a long solve")
        assert stop.wait(30), "Stop never came"
        return real(cluster, model, **options)

    monkeypatch.setattr(cluster_editor, "solve", slow)
    editor.solve_button.click()
    deadline = time.monotonic() + 20
    while "stub of a long solve" not in editor.status.text and time.monotonic() < deadline:
        time.sleep(0.01)
    assert editor.solve_button.disabled and not editor.stop_button.disabled
    assert "value 5 tokens/s" in editor.status.text and "gap 100%" in editor.status.text
    editor.stop_button.click()
    assert editor.wait(60) and "stopped" in editor.status.text and editor.plan is not None


def test_a_failing_solve_is_shown(editor):
    editor.solver.value = "gurobi"
    editor.solve_button.click()
    assert editor.wait(60) and "gurobi" in editor.status.text.lower() and not editor.solve_button.disabled


def test_yaml_goes_out_and_comes_back(editor, tmp_path):
    editor.path.value = str(tmp_path / "mine.yaml")
    editor.rows[0].count.value = 5
    editor.save_button.click()
    assert Cluster.load(editor.path.value) == editor.cluster()
    other = ClusterEditor("single24", "llama-30b")
    other.path.value = editor.path.value
    other.load_button.click()
    assert other.cluster().kind_counts == {"A100-40G": 5, "L4": 4}
    other.path.value = str(tmp_path / "missing.yaml")
    other.load_button.click()
    assert "no such file" in other.status.text
    other.path.value = str(tmp_path / "no" / "folder.yaml")
    other.save_button.click()
    assert "folder.yaml" in other.status.text


def test_a_preset_fills_the_table(editor):
    editor.preset.value = "hetero42"
    assert editor.cluster() == Cluster.preset("hetero42") and len(editor.rows) == 7


def test_planning_for_what_is_served_tells_what_is_served(editor):
    editor.objective.value = "served"
    editor.limit.value = 4
    editor.solve_button.click()
    assert editor.wait(90)
    assert editor.plan.objective == "served"
    served = editor.plan.served["decode_tokens_per_s"]
    assert f"decodes {format_number(served)} tokens/s" in editor.status.text
    how = "simulated" if editor.plan.served.is_simulated else "predicted"  # on a busy machine no simulation ends
    assert f"serves {format_number(served)} ({how})" in editor.plan.to_svg() and f"({how}" in editor.status.text


def test_goodput_needs_limits_and_says_so(editor, monkeypatch):
    asked = []

    def refuse(*_, **options):
        asked.append(options["slo"])
        raise InputError("enough")

    monkeypatch.setattr(cluster_editor, "solve", refuse)
    editor.objective.value = "goodput"
    editor.solve_button.click()
    assert "slo" in editor.status.text and "expected limits such as ttft:0.5" in editor.status.text and not asked
    editor.slo.value = "ttft:2 tpot:200ms at:0.9"
    editor.solve_button.click()
    assert editor.wait(30) and asked == [SLO(ttft_s=2.0, tpot_s=0.2, at=0.9)]
    editor.objective.value = "flow"
    editor.solve_button.click()
    assert editor.wait(30) and asked[1:] == [None]


def test_what_is_predicted_is_not_called_simulated(editor):
    editor.solve_button.click()
    assert editor.wait(60)
    served = Served(decode_tokens_per_s=312.0, window_s=0.0)
    predicted = editor.plan.model_copy(update={"served": served, "objective": "served"})
    editor._solved(predicted)
    assert "312 tokens/s (predicted: the time was too short for a simulation)" in editor.status.text
    assert "serves 312 (predicted)" in plan_summary(predicted)


@pytest.fixture
def special() -> Cluster:
    """A GPU of one's own, names, exceptions both ways and one way, a network card, a rule beyond the slider's end."""
    return Cluster.model_validate(
        {
            "name": "special",
            "coordinator": {"region": "us"},
            "gpus": {"BIG": {"memory_gb": 180, "memory_bandwidth_gb_per_s": 8000, "fp16_tflops": 2250}},
            "nodes": [
                {"gpu": "L4", "region": "eu"},
                {"gpu": "BIG", "region": "us", "name": "rack-3"},
                {"gpu": "L4", "count": 2, "region": "eu"},
            ],
            "network": {
                "within_region": {"bandwidth_gbps": 4000, "latency_ms": 0.1},
                "between_regions": {"bandwidth_gbps": 1, "latency_ms": 40},
                "nic_gbps": 25,
                "links": [
                    {"between": ["rack-3", "L4-2"], "bandwidth_gbps": 0.2, "latency_ms": 9},
                    {"source": "coordinator", "target": "L4-0", "bandwidth_gbps": 0.3, "latency_ms": 7},
                ],
            },
        }
    )


def test_what_the_table_does_not_show_survives_an_edit(special):
    editor = ClusterEditor(special, "llama-30b")
    assert [row.gpu.value for row in editor.rows] == ["L4", "BIG"] and "BIG" in editor.rows[0].gpu.options
    assert editor.cluster() == special
    editor.rows[0].count.value = 4
    made = editor.cluster()
    assert [n.name for n in made.nodes] == [n.name for n in special.nodes] + ["L4-3"]
    assert made.gpus == special.gpus and made.network == special.network and made.coordinator == special.coordinator
    editor.rows[0].count.value = 3
    assert editor.cluster().nodes == special.nodes and editor.cluster().network == special.network
    editor.between_gbps.value = 2.0
    assert editor.cluster().link("L4-0", "rack-3").bandwidth_gbps == pytest.approx(2.0)
    assert editor.cluster().link("L4-2", "rack-3").bandwidth_gbps == 0.2
    assert editor.cluster().network.within_region == special.network.within_region
    assert "2 links have a bandwidth and latency of their own" in editor.exceptions.text


def test_own_gpus_and_exceptions_are_planned_with_after_an_edit(special):
    editor = ClusterEditor(special, "llama-30b")
    editor.rows[0].count.value = 4
    solved(editor)
    assert editor.plan.cluster == editor.cluster() and "rack-3" in editor.plan.placement
    before = editor.plan.flow_tokens_per_s
    editor.between_ms.value = 45
    assert "same placement" in editor.status.text and editor.plan.flow_tokens_per_s == pytest.approx(before)
    assert editor.plan.cluster.network.links == special.network.links


def test_an_exception_goes_only_with_its_machine_and_it_is_said(special):
    editor = ClusterEditor(special, "llama-30b")
    editor.rows[0].count.value = 2
    made = editor.cluster()
    assert [n.name for n in made.nodes] == ["L4-0", "rack-3", "L4-1"]
    assert [link.ends for link in made.network.links] == [("coordinator", "L4-0")]
    assert "1 link has a bandwidth and latency of its own" in editor.exceptions.text
    assert "Removed together with their machines: rack-3 – L4-2." in editor.exceptions.text
    # A new machine may take the name that became free, but not the old one's link.
    editor.add.click()
    editor.rows[-1].region.value = "us"
    assert editor.cluster().node("L4-2").region == "us" and len(editor.cluster().network.links) == 1
    # The old one comes back with name and link.
    editor.rows[0].count.value = 3
    assert editor.cluster().node("L4-2").region == "eu" and editor.cluster().node("L4-3").region == "us"
    assert editor.cluster().network.links == special.network.links and "Gone" not in editor.exceptions.text


def test_exceptions_follow_machines_whose_kind_changes(special):
    editor = ClusterEditor(special, "llama-30b")
    editor.rows[0].gpu.value = "T4"
    editor.rows[1].per_node.value = 2
    made = editor.cluster()
    assert [n.name for n in made.nodes] == ["T4-0", "rack-3", "T4-1", "T4-2"]
    assert made.link("T4-2", "rack-3").bandwidth_gbps == 0.2 == made.link("rack-3", "T4-2").bandwidth_gbps
    assert made.link("coordinator", "T4-0").bandwidth_gbps == 0.3 != made.link("T4-0", "coordinator").bandwidth_gbps


def test_exceptions_can_be_forgotten_and_the_coordinator_moved(special):
    editor = ClusterEditor(special, "llama-30b")
    assert editor.forget_button.layout.display != "none"
    editor.forget_button.click()
    assert editor.cluster().network.links == () and editor.cluster().gpus == special.gpus
    assert editor.forget_button.layout.display == "none" and editor.exceptions.text == ""
    editor.coordinator.value = "eu"
    assert editor.cluster().coordinator.region == "eu"
    editor.fill(special)
    assert editor.cluster() == special and "2 links" in editor.exceptions.text


def test_edited_yaml_keeps_own_gpus_and_exceptions(special, tmp_path):
    editor = ClusterEditor(special, "llama-30b")
    editor.rows[0].count.value = 5
    editor.path.value = str(tmp_path / "mine.yaml")
    editor.save_button.click()
    back = Cluster.load(editor.path.value)
    assert back == editor.cluster() and back.gpus == special.gpus and back.network == special.network


def echo(editor: ClusterEditor) -> None:
    """What a browser sends after it has drawn the sliders: their positions, rounded to whole steps."""
    for field in (editor.within, editor.between):
        steps = round((math.log10(field.gbps.value) + 3) / 0.01)
        field.slider.set_state({"value": 10 ** (-3 + steps * 0.01)})


def test_a_slider_that_returns_keeps_the_solved_bound(editor):
    solved(editor)
    plan, gap = editor.plan, editor.plan.gap
    echo(editor)
    assert editor.plan is plan and editor.solved is plan
    editor.between.slider.set_state({"value": 0.01})
    assert editor.plan is not plan
    editor.between.slider.set_state({"value": 1.0})
    assert editor.plan is plan and editor.plan.gap == gap
    assert "links of the solved plan" in editor.status.text


def test_changes_are_against_the_solved_plan_not_the_last_event(editor):
    before = solved(editor).plan.flow_tokens_per_s
    for gbps in (0.1, 0.01, 0.001):
        editor.between_gbps.value = editor.within_gbps.value = gbps
    now = editor.plan.flow_tokens_per_s
    assert now < 0.5 * before
    assert f"({now / before - 1:+.1%} against the solved plan)" in editor.status.text
    assert f"({now / before - 1:+.1%})" in editor.figures.text


def test_the_bound_holds_for_slower_links_and_is_given_up_for_faster_ones(editor):
    solved(editor)
    bound = editor.solved.bound_tokens_per_s
    editor.between_gbps.value = 0.5
    assert editor.plan.bound_tokens_per_s == bound and "not proven" not in editor.status.text
    editor.between_gbps.value = 2.0
    assert editor.plan.bound_tokens_per_s >= bound and "not proven for faster links" in editor.status.text


def test_the_clusters_name_stays_until_it_is_edited(editor, tmp_path):
    assert editor.name.value == "small" and editor.path.value == "small.yaml"
    editor.rows[0].count.value = 4
    assert solved(editor).plan.cluster.name == "small"
    editor.name.value = "larger"
    assert editor.cluster().name == "larger"
    editor.preset.value = "single24"
    assert editor.name.value == "single24" and editor.path.value == "single24.yaml"
    editor.path.value = str(tmp_path / "mine.yaml")
    editor.save_button.click()
    editor.preset.value = "hetero42"
    assert editor.path.value == str(tmp_path / "mine.yaml"), "a file that the reader has named is kept"
    editor.load_button.click()
    assert editor.cluster().name == "single24"
    editor.reset_button.click()
    assert editor.cluster().name == "small"


def test_the_best_placement_is_drawn_while_it_solves(editor, monkeypatch):
    shown, go_on = [], threading.Event()
    real = cluster_editor.solve

    def slow(cluster, model, *, incumbent, progress, stop, **options):
        problem = Problem.of(cluster, model)
        first = hk.plan(cluster, model, method="swarm")
        progress(0.1, first.flow_tokens_per_s, 1e4, "")
        incumbent(first.placement)
        shown.append((editor.graph.plan.placement, editor.graph.plan.method, editor.why.text))
        incumbent(dict.fromkeys(list(first.placement)[:1], (0, problem.num_layers)))
        shown.append(editor.graph.plan.placement)
        go_on.wait(30)
        return real(cluster, model, **options)

    monkeypatch.setattr(cluster_editor, "solve", slow)
    editor.solve_button.click()
    deadline = time.monotonic() + 30
    while len(shown) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    (placement, method, why), after = shown
    assert method == "best so far" and "best placement so far" in why and editor.plan is None
    assert after == placement, "no drawing more often than once a second"
    go_on.set()
    assert editor.wait(90) and editor.graph.plan is editor.plan and editor.curve.points
    assert "value" in editor.curve.value and "bound" in editor.curve.value


def test_a_failed_solve_shows_the_last_plan_again(editor):
    solved(editor)
    editor.solver.value = "gurobi"
    editor.solve_button.click()
    assert editor.wait(60) and editor.graph.plan is editor.plan is editor.solved


def test_figures_stand_beside_the_flow(editor):
    solved(editor)
    text = editor.figures.text
    for label in ("decoded under full load", "to the first token, s", "each further token, s", "KV caches", "$/h"):
        assert label in text


def test_a_dashboards_next_visit_shows_the_last_plan(editor, monkeypatch, tmp_path):
    monkeypatch.setenv("HELIX_KIT_DASHBOARD", str(tmp_path))
    first = ClusterEditor(editor.cluster(), "llama-30b", keep="test", simulate=False)
    assert first.plan is None
    first.rows[0].count.value = 4
    solved(first)
    later = ClusterEditor(editor.cluster(), "llama2-70b", keep="test", simulate=False)
    assert later.plan == first.plan and later.cluster() == first.cluster() and later.model.value.name == "llama-30b"
    assert "last visit" in later.status.text and later.graph.plan is later.plan
    later.reset_button.click()
    assert later.cluster() == editor.cluster()
    assert ClusterEditor(editor.cluster(), "llama-30b", simulate=False).plan is None
