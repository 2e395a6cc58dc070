"""Links by nodes and by regions: which one holds for a pair, what each mistake is told, and who else reads them."""

from __future__ import annotations

import networkx as nx
import pytest
from pydantic import ValidationError

import helix_kit as hk
from helix_kit.cluster import COORDINATOR, Cluster, Link
from helix_kit.flow import MILLI, SINK, SOURCE, build_flow_graph
from helix_kit.model import Model
from helix_kit.placement.bounds.regions import fastest_crossing, max_crossing
from helix_kit.placement.groups import groups_of
from helix_kit.placement.problem import Problem

NODES = [{"gpu": "H100-80G", "count": 2, "region": "lab"}, {"gpu": "L4", "count": 2, "region": "city"},
         {"gpu": "RTX4090", "count": 2, "region": "home"}]  # fmt: skip


def cluster(links: list[dict[str, object]], **network: object) -> Cluster:
    """Three regions, the coordinator in the lab; 0.2 Gbit/s between regions unless `network` says otherwise."""
    rules = {"between_regions": {"bandwidth_gbps": 0.2, "latency_ms": 30}} | network
    return Cluster.model_validate({"name": "three", "nodes": NODES, "network": {**rules, "links": links}})


def test_a_link_of_two_regions_is_that_of_all_their_nodes_and_of_the_coordinator():
    mine = cluster([{"between": ["lab", "home"], "bandwidth_gbps": 0.05, "latency_ms": 15, "usd_per_gb": 0.09}])
    home = Link(bandwidth_gbps=0.05, latency_ms=15, usd_per_gb=0.09)
    for a, b in (("H100-80G-0", "RTX4090-1"), ("RTX4090-0", "H100-80G-1"), (COORDINATOR, "RTX4090-0")):
        assert mine.link(a, b) == home
    assert mine.link("H100-80G-0", "L4-0") == mine.link("L4-1", "RTX4090-0") == Link(bandwidth_gbps=0.2, latency_ms=30)
    assert mine.region_link("home", "lab") == home


def test_nodes_come_before_regions_one_direction_and_links_within_a_region_can_be_given():
    mine = cluster([
        {"between": ["H100-80G-0", "RTX4090-0"], "bandwidth_gbps": 1},
        {"source": "lab", "target": "home", "bandwidth_gbps": 0.05},
        {"between": ["home", "home"], "bandwidth_gbps": 2.5},
    ])  # fmt: skip
    widths = {
        pair: mine.link(*pair).bandwidth_gbps
        for pair in (("H100-80G-0", "RTX4090-0"), ("H100-80G-1", "RTX4090-0"), ("RTX4090-0", "H100-80G-1"),
                     ("RTX4090-0", "RTX4090-1"), ("L4-0", "L4-1"))
    }  # fmt: skip
    assert list(widths.values()) == [1, 0.05, 0.2, 2.5, 10]


@pytest.mark.parametrize(
    ("links", "expected"),
    [
        ([{"between": ["lab", "L4-0"], "bandwidth_gbps": 1}], "two regions, not region 'lab' and node 'L4-0'"),
        ([{"between": ["lab", "hom"], "bandwidth_gbps": 1}], "unknown node or region 'hom': did you mean home"),
        ([{"between": ["L4-0", "L4-0"], "bandwidth_gbps": 1}], "two different ends, not 'L4-0' twice"),
        ([{"between": ["lab", "home"], "bandwidth_gbps": 1}] * 2, "lab -> home stands in links[0] too"),
        ([{"source": "lab", "bandwidth_gbps": 1}], "either `between: [a, b]`, or both `source` and `target`"),
        ([{"between": ["lab", "home"], "bandwidth_gbps": 1, "usd_per_gb": -1}], "usd_per_gb"),
    ],
)  # fmt: skip
def test_each_mistake_is_told(links, expected):
    with pytest.raises(ValidationError) as caught:
        cluster(links)
    assert expected in str(caught.value)


def test_a_name_of_both_a_node_and_a_region_cannot_name_the_end_of_a_link():
    nodes = [{"gpu": "L4", "name": "home", "region": "lab"}, {"gpu": "L4", "region": "home"}]
    network = {"between_regions": {"bandwidth_gbps": 1}}
    Cluster.model_validate({"name": "both", "nodes": nodes, "network": network})  # without such a link it is no matter
    network["links"] = [{"between": ["lab", "home"], "bandwidth_gbps": 1}]
    with pytest.raises(ValidationError, match="'home' names a region and a node"):
        Cluster.model_validate({"name": "both", "nodes": nodes, "network": network})


def test_links_of_all_pairs_of_regions_stand_for_the_rule_and_a_missing_pair_is_named():
    pairs = [("lab", "city"), ("city", "home"), ("home", "lab")]
    links = [{"between": list(pair), "bandwidth_gbps": 0.1 * (i + 1)} for i, pair in enumerate(pairs)]
    mine = cluster(links, between_regions=None)
    assert mine.link("RTX4090-0", "H100-80G-0").bandwidth_gbps == pytest.approx(0.3)
    with pytest.raises(ValidationError, match=r"no link is given for coordinator \(lab\) -> RTX4090-0 \(home\)"):
        cluster(links[:2], between_regions=None)


def test_a_part_of_a_cluster_keeps_the_links_of_its_regions_and_files_keep_them_too(tmp_path):
    links = [{"between": ["lab", "home"], "bandwidth_gbps": 0.05}, {"between": ["lab", "city"], "bandwidth_gbps": 0.1}]
    mine = cluster(links)
    mine.save(tmp_path / "mine.yaml")
    assert Cluster.load(tmp_path / "mine.yaml") == mine
    part = mine.subset(["H100-80G-0", "RTX4090-0"])
    assert [link.ends for link in part.network.links] == [("lab", "home")]
    assert part.link("H100-80G-0", "RTX4090-0").bandwidth_gbps == 0.05


def test_a_copy_with_other_links_does_not_remember_the_old_ones():
    mine = cluster([])
    assert mine.link("H100-80G-0", "L4-0").bandwidth_gbps == 0.2
    wide = Link(bandwidth_gbps=7)
    copied = mine.model_copy(update={"network": mine.network.model_copy(update={"between_regions": wide})})
    assert copied.link("H100-80G-0", "L4-0").bandwidth_gbps == 7


def test_what_crosses_regions_is_bounded_by_the_links_of_the_pairs():
    """The bound is the smaller of two sums over pairs of nodes, which are added up here one by one."""
    mine = cluster([
        {"between": ["lab", "home"], "bandwidth_gbps": 0.0005},
        {"source": "city", "target": "lab", "bandwidth_gbps": 0.0001},
        {"between": ["H100-80G-0", "L4-1"], "bandwidth_gbps": 0.001},
    ], between_regions={"bandwidth_gbps": 0.0002})  # fmt: skip
    problem = Problem.of(mine, Model.preset("llama-30b"))
    groups = groups_of(problem)
    names = [n.name for n in mine.nodes]
    crossing = {(a, b): problem.link_capacity(a, b) for a in names for b in names
                if mine.region_of(a) != mine.region_of(b)}  # fmt: skip
    pairs = sum(max(c, crossing[b, a]) for (a, b), c in crossing.items()) / 2
    fastest = {n: max(g.throughput) for g in groups for n in g.nodes}
    sent = sum(min(fastest[n], sum(c for (a, _), c in crossing.items() if a == n)) for n in names)
    received = sum(min(fastest[n], sum(c for (_, b), c in crossing.items() if b == n)) for n in names)
    assert max_crossing(problem, groups) == pytest.approx(min(pairs, sent, received))
    assert fastest_crossing(problem, groups) == pytest.approx(max(crossing.values()))


def test_a_flow_over_regions_carries_what_their_link_does():
    mine = cluster([{"between": ["lab", "home"], "bandwidth_gbps": 0.002}])
    model = Model.preset("llama-30b")
    placement = {"H100-80G-0": (0, 30), "RTX4090-0": (30, 60)}
    graph = build_flow_graph(mine, model, placement, {"H100-80G-0": 1e6, "RTX4090-0": 1e6})
    expected = 0.002e9 / 8 / model.link_bytes_per_token
    assert nx.maximum_flow_value(graph, SOURCE, SINK) / MILLI == pytest.approx(expected, abs=1e-3)


def test_a_link_of_bandwidth_0_is_not_there():
    """Two machines hold the halves of a model; without a way from a to b only c, a slower one, can follow a."""
    nodes = [{"name": name, "gpu": gpu} for name, gpu in (("a", "L4"), ("b", "L4"), ("c", "T4"))]
    placement = {"a": (0, 15), "b": (15, 30), "c": (15, 30)}
    whole = Cluster.model_validate({"name": "whole", "nodes": nodes})
    links = [{"source": "a", "target": "b", "bandwidth_gbps": 0}]
    cut = Cluster.model_validate({"name": "cut", "nodes": nodes, "network": {"links": links}})
    plans = {
        c.name: hk.Plan.from_placement(hk.Problem.of(c, hk.Model.preset("SmolLM2-135M")), placement, method="hand")
        for c in (whole, cut)
    }
    assert plans["whole"].flow_edges.get(("a", "b"), 0) > 0
    assert plans["cut"].flow_edges.get(("a", "b"), 0) == 0 < plans["cut"].flow_edges["a", "c"]
    for policy in ("helix", "swarm", "random", "shortest-queue"):
        run = hk.simulate(
            plans["cut"], hk.Workload.constant(2.0, 10.0, input_tokens=20, output_tokens=4), policy=policy
        )
        assert run.summary()["finished"] == 20
        assert {tuple(s.node for s in record.pipeline) for record in run.records} == {("a", "c")}
    both = [{"between": ["coordinator", "a"], "bandwidth_gbps": 0}]
    alone = Cluster.model_validate({"name": "alone", "nodes": nodes[:1], "network": {"links": both}})
    with pytest.raises(hk.InfeasibleError):
        hk.plan(alone, "SmolLM2-135M", time_limit_s=2)


def test_a_link_that_is_not_there_survives_a_round_trip(tmp_path):
    nodes = [{"name": name, "gpu": "L4"} for name in "ab"]
    links = [{"between": ["a", "b"], "bandwidth_gbps": 0}]
    cluster = Cluster.model_validate({"name": "cut", "nodes": nodes, "network": {"links": links}})
    cluster.save(tmp_path / "c.yaml")
    assert Cluster.load(tmp_path / "c.yaml") == cluster
    with pytest.raises(ValueError, match="expected a number above 0; that two nodes"):
        Cluster.model_validate({"name": "no", "nodes": nodes, "network": {"within_region": {"bandwidth_gbps": 0}}})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("; artifact\n[settings]\nauto = 1\n", "an INI file"),
        ("cluster_name: minimal\navailable_node_types:\n  head: {}\n", "Ray's cluster launcher"),
        ("servers:\n  - {sku: dgx-a100, count: 40}\ninterconnects: []\n", "splitwise-sim"),
        ("GPU0 GPU1 CPU Affinity\nGPU0 X NV12 0-31\n", "nvidia-smi topo"),
    ],
)
def test_files_of_other_tools_are_named(tmp_path, text, words):
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    with pytest.raises(hk.InputError, match=f"{words}.*expected YAML with name, nodes"):
        Cluster.load(path)
