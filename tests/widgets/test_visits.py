"""What a dashboard keeps: results by call, plans by name, nothing outside a dashboard."""

from __future__ import annotations

import pandas as pd
import pytest

from helix_kit import Cluster, Model, plan
from helix_kit.analysis import losses
from helix_kit.widgets import visits
from helix_kit.widgets.visits import VARIABLE, keep_plan, kept_plan, remembered


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "kept"))
    return tmp_path / "kept"


@pytest.fixture
def calls(monkeypatch):
    """A function like `losses` that counts its calls."""
    made = []

    def table(subject, *, rate=1.0):
        made.append(rate)
        return pd.DataFrame({"flow": [1.5 * rate, None], "who": ["a", "3"]}, index=pd.Index(["x", "y"], name="machine"))

    monkeypatch.setattr(visits, "counted", table, raising=False)
    return table, made


def test_outside_a_dashboard_every_call_computes(calls, monkeypatch, plan):
    monkeypatch.delenv(VARIABLE, raising=False)
    table, made = calls
    remembered(table, plan), remembered(table, plan)
    assert made == [1.0, 1.0]
    keep_plan("editor", plan)
    assert kept_plan("editor") is None


def test_equal_calls_compute_once_and_others_again(calls, folder, plan):
    table, made = calls
    first = remembered(table, plan)
    pd.testing.assert_frame_equal(remembered(table, plan), first)
    assert made == [1.0]
    assert remembered(table, plan, rate=2.0)["flow"].iloc[0] == 3.0
    remembered(table, plan.rearranged({**plan.placement, "T4-0": (19, 30)}))
    assert made == [1.0, 2.0, 1.0]


def test_a_kept_file_that_is_broken_is_computed_again(calls, folder, plan):
    table, made = calls
    remembered(table, plan)
    for path in folder.glob("*.json"):
        path.write_text('{"table": ')
    remembered(table, plan)
    assert made == [1.0, 1.0]


def test_results_of_other_code_are_not_taken(calls, folder, plan, monkeypatch):
    table, made = calls
    remembered(table, plan)
    monkeypatch.setattr(visits, "_version", lambda: "another")
    remembered(table, plan)
    assert made == [1.0, 1.0]


def test_plans_and_tables_of_the_package_come_back_equal(folder):
    cluster, model = Cluster.model_validate({"name": "six", "nodes": [{"gpu": "L4", "count": 6}]}), "llama-30b"
    planned = remembered(plan, cluster, Model.preset(model), method="proportional")
    again = remembered(plan, cluster, Model.preset(model), method="proportional")
    assert again == planned and again.seconds == planned.seconds, "the very same plan, not a new one"
    pd.testing.assert_frame_equal(remembered(losses, planned), losses(planned), check_dtype=False)
    pd.testing.assert_frame_equal(remembered(losses, planned), losses(planned), check_dtype=False)


def test_what_cannot_be_kept_is_computed(folder):
    assert remembered(sorted, [3, 1]) == [1, 3] and remembered(sorted, iter([3, 1])) == [1, 3]
    assert not folder.exists() or not list(folder.glob("*.json"))


def test_the_last_plan_of_a_name_is_kept(folder, plan):
    keep_plan("editor", plan)
    keep_plan(None, plan)
    assert kept_plan("editor") == plan and kept_plan("another") is None and kept_plan(None) is None
    (folder / "editor.plan.json").write_text("{}")
    assert kept_plan("editor") is None


def test_old_results_are_deleted(folder, plan, calls, monkeypatch):
    monkeypatch.setattr(visits, "MAX_RESULTS", 3)
    for rate in range(6):
        remembered(calls[0], plan, rate=float(rate))
    assert len(list(folder.glob("*.json"))) == 3
