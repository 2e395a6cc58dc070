"""What-if answers: planned anew, ranked, with prices; losses without planning anew."""

from __future__ import annotations

import networkx as nx
import pytest

from helix_kit import Cluster, Model, plan
from helix_kit.analysis import changes, losses, what_if
from helix_kit.flow import SINK, SOURCE, build_flow_graph


@pytest.fixture(scope="module")
def small_plan():
    """Five L4 and two A100 in two regions with a thin link; planned."""
    cluster = Cluster.model_validate(
        {
            "name": "small",
            "nodes": [{"gpu": "A100-40G", "count": 2, "region": "us"}, {"gpu": "L4", "count": 5, "region": "eu"}],
            "network": {"between_regions": {"bandwidth_gbps": 0.05, "latency_ms": 40}},
        }
    )
    return plan(cluster, Model.preset("llama-30b"), time_limit_s=10)


def test_changes_add_lose_and_widen_what_there_is(small_plan):
    asked = {c.name: c for c in changes(small_plan)}
    assert set(asked) == {
        "one more A100-40G in us",
        "one more L4 in eu",
        "links between regions 2x as wide",
        "one A100-40G less in us",
        "one L4 less in eu",
    }
    more = asked["one more L4 in eu"].cluster
    assert more.kind_counts == {"A100-40G": 2, "L4": 6} and more.node("L4-5").region == "eu"
    assert asked["one L4 less in eu"].cluster.kind_counts == {"A100-40G": 2, "L4": 4}
    wide = asked["links between regions 2x as wide"].cluster
    assert wide.link("A100-40G-0", "L4-0").bandwidth_gbps == 0.1
    assert wide.link("A100-40G-0", "A100-40G-1") == small_plan.cluster.link("A100-40G-0", "A100-40G-1")
    assert asked["one more L4 in eu"].usd_per_hour == 0.71
    kinds = {c.name for c in changes(small_plan, add=["H100-80G"], widen=1, lose=False)}
    assert kinds == {"one more H100-80G in us", "one more H100-80G in eu"}


def test_machines_are_added_with_their_link_and_the_clusters_own_gpus():
    own = {"memory_gb": 90, "memory_bandwidth_gb_per_s": 2000, "fp16_tflops": 400, "price_usd_per_hour": 3}
    nodes = [{"gpu": "mine", "gpus_per_node": 2, "gpu_link": "pcie"}, {"gpu": "mine"}]
    cluster = Cluster.model_validate({"name": "own", "memory_share": 0.8, "gpus": {"mine": own}, "nodes": nodes})
    asked = {c.name: c for c in changes(plan(cluster, Model.preset("llama-30b"), time_limit_s=5), widen=1)}
    assert set(asked) == {"one more minex2-pcie", "one more mine", "one minex2-pcie less", "one mine less"}
    more = asked["one more minex2-pcie"]
    assert more.cluster.kind_counts == {"minex2-pcie": 2, "mine": 1} and more.usd_per_hour == 6
    assert (more.cluster.gpus, more.cluster.memory_share) == (cluster.gpus, 0.8)
    assert asked["one minex2-pcie less"].cluster.kind_counts == {"mine": 1}


def test_answers_are_what_planning_the_changed_cluster_gives(small_plan):
    table = what_if(small_plan, time_limit_s=10)
    assert list(table["gain_tokens_per_s"]) == sorted(table["gain_tokens_per_s"], reverse=True)
    rows = table.set_index("change")
    asked = {c.name: c for c in changes(small_plan)}
    for name in ("one more A100-40G in us", "one L4 less in eu"):
        again = plan(asked[name].cluster, small_plan.model, time_limit_s=10)
        assert rows.loc[name, "flow_tokens_per_s"] == pytest.approx(again.flow_tokens_per_s, rel=2e-3)
    assert (rows[rows["kind"] == "add"]["gain_tokens_per_s"] >= 0).all()
    assert rows.loc["one A100-40G less in us", "gain_tokens_per_s"] < 0
    better = rows.loc["one more A100-40G in us"]
    assert better["gain_per_usd"] == pytest.approx(better["gain_tokens_per_s"] / 1.99)


def test_a_loss_that_leaves_no_plan_counts_as_zero():
    alone = plan(
        Cluster.model_validate({"name": "two", "nodes": [{"gpu": "A100-80G", "count": 1}, {"gpu": "T4", "count": 1}]}),
        Model.preset("llama-30b"),
    )
    rows = what_if(alone, time_limit_s=5).set_index("change")
    assert rows.loc["one A100-80G less", "flow_tokens_per_s"] == 0
    assert rows.loc["one A100-80G less", "gain_percent"] == -100


def test_losses_are_the_max_flow_of_what_is_left(overlapping_plan):
    table = losses(overlapping_plan).set_index("node")
    assert set(table.index) == set(overlapping_plan.placement)
    for name in overlapping_plan.placement:
        rest = {n: span for n, span in overlapping_plan.placement.items() if n != name}
        speeds = {n: overlapping_plan.node_throughput_tokens_per_s[n] for n in rest}
        graph = build_flow_graph(overlapping_plan.cluster, overlapping_plan.model, rest, speeds)
        value = nx.minimum_cut_value(graph, SOURCE, SINK) / 1000
        assert table.loc[name, "flow_tokens_per_s"] == pytest.approx(value)


def test_progress_names_what_is_planned(small_plan):
    heard = []
    what_if(small_plan, changes(small_plan, lose=False)[:1], time_limit_s=5, progress=lambda *now: heard.append(now))
    assert heard == [(0, 1, "one more A100-40G in us"), (1, 1, "done")]
