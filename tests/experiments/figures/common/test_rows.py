"""Rows of tables: one for each metric of each source, and none for a method without a plan."""

from helix_kit import Cluster, Model
from helix_kit.experiments.figures.common.rows import COLUMNS, Case, method_rows, metric_rows
from helix_kit.experiments.machinery.registry import Context


def test_a_row_for_each_metric_of_each_source():
    values = {"ours": {"speed": 2.0, "latency": 3.0}, "published": {"speed": 1.0}}
    rows = metric_rows(Case("6.3", "single", "llama-30b", "offline"), "helix", values)
    assert all(tuple(row) == COLUMNS for row in rows)
    assert [(r["source"], r["metric"], r["value"]) for r in rows] == [
        ("ours", "speed", 2.0),
        ("ours", "latency", 3.0),
        ("published", "speed", 1.0),
    ]


def test_a_method_without_a_plan_has_no_row():
    # Swarm's stages are equal, and the T4 cannot hold a third of the layers. The A100 alone is a separate pipeline.
    odd = Cluster.model_validate({"name": "odd", "nodes": [{"gpu": g} for g in ("A100-80G", "L4", "T4")]})
    heard = []
    methods = [("separate", {"method": "separate"}), ("swarm", {"method": "swarm"})]
    found = list(method_rows({"cluster": "odd"}, odd, Model.preset("llama-30b"), methods, Context(say=heard.append)))
    assert heard == ["odd separate", "odd swarm"]
    assert [row["method"] for row, _ in found] == ["separate"]
    ((row, plan),) = found
    assert row["cluster"] == "odd" and row["flow_tokens_per_s"] == plan.flow_tokens_per_s > 0


def test_a_model_that_does_not_fit_has_no_rows():
    small = Cluster.model_validate({"name": "small", "nodes": [{"gpu": "T4"}]})
    assert not list(method_rows({}, small, Model.preset("llama2-70b"), [("swarm", {"method": "swarm"})], Context()))
