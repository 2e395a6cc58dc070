"""Which changes are asked about, and the clusters that they make."""

from __future__ import annotations

import pytest

from helix_kit import Cluster, Model, Plan, Problem, plan
from helix_kit.analysis import changes
from helix_kit.errors import InputError

NODES = [{"gpu": "A100-40G", "count": 2, "region": "lab"}, {"gpu": "L4", "count": 5, "region": "city"},
         {"gpu": "RTX4090", "count": 2, "region": "home"}]  # fmt: skip


def planned(nodes: list[dict[str, object]], **fields: object):
    """A plan by a method that takes no time."""
    cluster = Cluster.model_validate({"name": "small", "nodes": nodes, **fields})
    return plan(cluster, Model.preset("llama-30b"), method="proportional")


@pytest.fixture(scope="module")
def three():
    """Three regions; the link between the lab and the home is thinner, and one pair of nodes has its own."""
    links = [{"between": ["lab", "home"], "bandwidth_gbps": 0.05, "usd_per_gb": 0.09},
             {"between": ["A100-40G-0", "RTX4090-0"], "bandwidth_gbps": 1}]  # fmt: skip
    return planned(NODES, network={"between_regions": {"bandwidth_gbps": 0.2, "latency_ms": 40}, "links": links})


def test_changes_add_lose_and_widen_what_there_is(three):
    asked = {c.name: c for c in changes(three)}
    assert list(asked) == [
        "one more A100-40G in lab", "one more L4 in city", "one more RTX4090 in home",
        "links between regions 2x as wide", "links between lab and city 2x as wide",
        "links between lab and home 2x as wide", "links between city and home 2x as wide",
        "one A100-40G less in lab", "one L4 less in city", "one RTX4090 less in home",
    ]  # fmt: skip
    more = asked["one more L4 in city"]
    assert more.cluster.kind_counts["L4"] == 6 and more.cluster.node("L4-5").region == "city"
    assert more.usd_per_hour == 0.71 and asked["one L4 less in city"].usd_per_hour == -0.71
    assert asked["one L4 less in city"].cluster.kind_counts["L4"] == 4


def test_one_pair_of_regions_is_widened_alone_with_the_links_of_its_nodes(three):
    [change] = changes(three, add=[], widen=4, lose=False, links=[("home", "lab")])
    wide = change.cluster
    assert change.name == "links between home and lab 4x as wide"
    assert wide.link("A100-40G-1", "RTX4090-1").bandwidth_gbps == wide.link("RTX4090-1", "A100-40G-1").bandwidth_gbps
    assert wide.link("A100-40G-1", "RTX4090-1").bandwidth_gbps == pytest.approx(0.2)
    assert wide.link("A100-40G-1", "RTX4090-1").usd_per_gb == 0.09
    assert wide.link("A100-40G-0", "RTX4090-0").bandwidth_gbps == 4
    for a, b in (("A100-40G-0", "L4-0"), ("L4-0", "RTX4090-0"), ("A100-40G-0", "A100-40G-1")):
        assert wide.link(a, b) == three.cluster.link(a, b)


def test_all_links_between_regions_are_widened_once(three):
    every = next(c for c in changes(three) if c.name == "links between regions 2x as wide").cluster
    names = [n.name for n in every.nodes]
    for a in names:
        for b in names:
            if a != b:
                factor = 2 if every.region_of(a) != every.region_of(b) else 1
                assert every.link(a, b).bandwidth_gbps == factor * three.cluster.link(a, b).bandwidth_gbps


def test_kinds_that_the_cluster_lacks_can_be_bought_in_each_region(three):
    asked = changes(three, add=["H100-80G", "L4x2"], widen=1, lose=False)
    assert [c.name for c in asked] == [f"one more {kind} in {r}" for kind in ("H100-80G", "L4x2")
                                       for r in ("lab", "city", "home")]  # fmt: skip
    assert asked[0].cluster.node("H100-80G-0").region == "lab" and asked[3].usd_per_hour == 1.42


@pytest.mark.parametrize(
    ("options", "expected"),
    [({"add": ["H1000"]}, "unknown GPU 'H1000'"), ({"add": ["CPU-fast"]}, "unknown GPU"),
     ({"links": [("lab", "hom")]}, "unknown region 'hom': did you mean home")],
)  # fmt: skip
def test_each_mistake_is_told(three, options, expected):
    with pytest.raises(InputError) as caught:
        changes(three, **options)
    assert expected in str(caught.value)


def test_machines_are_added_with_their_link_and_the_clusters_own_gpus():
    own = {"memory_gb": 90, "memory_bandwidth_gb_per_s": 2000, "fp16_tflops": 400, "price_usd_per_hour": 3}
    nodes = [{"gpu": "mine", "gpus_per_node": 2, "gpu_link": "pcie"}, {"gpu": "mine"}]
    small = planned(nodes, memory_share=0.8, gpus={"mine": own}, prices={"mine": 4})
    asked = {c.name: c for c in changes(small, widen=1)}
    assert set(asked) == {"one more minex2-pcie", "one more mine", "one minex2-pcie less", "one mine less"}
    more = asked["one more minex2-pcie"]
    assert more.cluster.kind_counts == {"minex2-pcie": 2, "mine": 1} and more.usd_per_hour == 8
    kept = ("gpus", "prices", "memory_share", "throughput")
    assert all(getattr(more.cluster, name) == getattr(small.cluster, name) for name in kept)
    assert asked["one minex2-pcie less"].cluster.kind_counts == {"mine": 1}


def test_a_link_that_is_not_there_is_not_widened():
    cluster = Cluster.model_validate({
        "name": "split",
        "nodes": [{"gpu": "L4", "region": "a"}, {"gpu": "L4", "region": "b"}, {"gpu": "L4", "region": "c"}],
        "network": {
            "between_regions": {"bandwidth_gbps": 1},
            "links": [{"between": ["a", "b"], "bandwidth_gbps": 0}],
        },
    })  # fmt: skip
    problem = Problem.of(cluster, Model.preset("llama3.1-8b"))
    made = Plan.from_placement(problem, {"L4-0": (0, 32)}, method="hand")
    with pytest.raises(InputError, match=r"a:b.*bandwidth of 0"):
        changes(made, links=[("a", "b")])
    every = next(c for c in changes(made, add=[], lose=False) if c.name.startswith("links between regions"))
    assert every.cluster.link("L4-0", "L4-1") == cluster.link("L4-0", "L4-1")
    assert every.cluster.link("L4-0", "L4-2").bandwidth_gbps == 2
