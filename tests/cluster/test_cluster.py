"""Cluster descriptions: what is accepted, what each mistake is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from helix_kit.cluster import COORDINATOR, Cluster, load_cluster, preset_names
from helix_kit.errors import InputError

TWO_REGIONS = """
name: two-regions
coordinator: {region: us}
nodes:
  - {gpu: A100-40G, count: 2, region: us}
  - {gpu: L4, gpus_per_node: 2, count: 2, region: eu}
network:
  within_region:   {bandwidth_gbps: 10, latency_ms: 1}
  between_regions: {bandwidth_gbps: 0.1, latency_ms: 50}
  links: [{between: [A100-40G-0, L4x2-1], bandwidth_gbps: 0.2, latency_ms: 40}]
"""


def load(tmp_path, text: str) -> Cluster:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return Cluster.load(path)


def test_names_regions_and_links(tmp_path):
    cluster = load(tmp_path, TWO_REGIONS)
    assert [n.name for n in cluster.nodes] == ["A100-40G-0", "A100-40G-1", "L4x2-0", "L4x2-1"]
    assert cluster.regions == ("us", "eu")
    assert cluster.link("A100-40G-0", "A100-40G-1").bandwidth_gbps == 10
    assert cluster.link("A100-40G-0", "L4x2-0").latency_ms == 50
    assert cluster.link("L4x2-1", "A100-40G-0").bandwidth_gbps == 0.2  # `between` goes both ways
    assert cluster.link(COORDINATOR, "L4x2-0").bandwidth_gbps == 0.1
    assert cluster.link(COORDINATOR, "A100-40G-0").bytes_per_s == 1.25e9


def test_one_way_links(tmp_path):
    text = TWO_REGIONS.replace("between: [A100-40G-0, L4x2-1]", "source: A100-40G-0, target: L4x2-1")
    cluster = load(tmp_path, text)
    assert cluster.link("A100-40G-0", "L4x2-1").bandwidth_gbps == 0.2
    assert cluster.link("L4x2-1", "A100-40G-0").bandwidth_gbps == 0.1


@pytest.mark.parametrize(
    ("find", "replace", "expected"),
    [
        ("gpu: A100-40G", "gpu: A100-44G", ["unknown GPU 'A100-44G'", "did you mean A100"]),
        ("bandwidth_gbps: 10", "bandwidth_gbps: -10", ["within_region.bandwidth_gbps = -10", "greater than 0"]),
        ("bandwidth_gbps: 10", "bandwidth_gbps: 1.0e300", ["within_region.bandwidth_gbps = 1e+300", "less than"]),
        ("bandwidth_gbps: 10", "bandwidth_gbps: fast", ["within_region.bandwidth_gbps = 'fast'", "number"]),
        ("bandwidth_gbps: 10", "bandwidth_gbps: .inf", ["within_region.bandwidth_gbps", "finite"]),
        ("latency_ms: 50", "latency_ms: -1", ["between_regions.latency_ms = -1"]),
        (", region: eu}", "}", ["nodes[1]", "region"]),
        ("count: 2, region: us", "count: 0, region: us", ["nodes[0].count = 0", "at least 1"]),
        ("count: 2, region: us", "count: 1000000000, region: us", ["nodes[0].count = 1000000000", "at most 100,000"]),
        ("count: 2, region: us", "count: 2, name: a, region: us", ["nodes[0]", "count: 1"]),
        ("L4x2-1]", "L4x2-9]", ["network.links[0]", "unknown node or region 'L4x2-9'"]),
        ("L4x2-1]", "A100-40G-0]", ["two different ends"]),
        ("gpus_per_node: 2", "gpus_per_node: 0", ["gpus_per_node = 0"]),
        ("  between_regions: {bandwidth_gbps: 0.1, latency_ms: 50}\n", "", ["between_regions", "no default"]),
        ("nodes:", "noodles:", ["nodes", "noodles"]),
        ("name: two-regions", "name: [", ["not valid YAML"]),
        ("name: two-regions", "name: ''", ["name = ''", "at least one character"]),
        ("bandwidth_gbps: 10", "bandwidth_gbps: true", ["within_region.bandwidth_gbps = True", "expected a number"]),
        ("latency_ms: 50", "latency_ms: 1.0e300", ["between_regions.latency_ms = 1e+300", "less than"]),
        ("count: 2, region: us", "cuont: 2, region: us", ["nodes[0].cuont = 2", "did you mean count?"]),
        ("[A100-40G-0, L4x2-1]", "[A100-40G-0]", ["links[0].between", "expected two ends"]),
        ("[A100-40G-0, L4x2-1]", "[us, eu, eu]", ["links[0].between", "expected two ends"]),
        ("name: two-regions", "name: x\nprices: {L4: $0.5}", ["prices", "L4 = '$0.5'", "dollars per hour"]),
        ("name: two-regions", "name: x\nprices: {L4: true}", ["prices", "L4 = True", "dollars per hour"]),
    ],
)
def test_each_mistake_is_named(tmp_path, find, replace, expected):
    assert find in TWO_REGIONS
    with pytest.raises(InputError) as caught:
        load(tmp_path, TWO_REGIONS.replace(find, replace))
    message = str(caught.value)
    assert "mine.yaml" in message
    for part in expected:
        assert part in message
    assert "Traceback" not in message and "pydantic" not in message


def test_unknown_names(tmp_path):
    with pytest.raises(InputError, match=r"single24"):
        load_cluster("single42")
    with pytest.raises(InputError, match="no such file"):
        load_cluster(tmp_path / "absent.yaml")
    with pytest.raises(InputError, match=r"unknown node 'L4-99'.*L4-"):
        Cluster.preset("single24").node("L4-99")


@pytest.mark.parametrize("name", preset_names())
def test_presets_survive_a_round_trip(name, tmp_path):
    cluster = Cluster.preset(name)
    cluster.save(tmp_path / "copy.yaml")
    assert Cluster.load(tmp_path / "copy.yaml") == cluster


@pytest.mark.parametrize("name", ["single24", "geo24", "hetero42"])
def test_presets_equal_the_published_clusters(name, shared):
    """Node order, GPU kinds and every single link, from the published description."""
    import json

    published = json.loads((shared / "reference" / "clusters" / f"{name}.json").read_text())
    cluster = Cluster.preset(name)
    kinds = {"A100": "A100-40G", "V100": "V100-16G"}
    assert [n.kind for n in cluster.nodes] == [kinds.get(n["gpu"], n["gpu"]) for n in published["nodes"]]

    def ours(end: str) -> str:
        return COORDINATOR if end in {"source", "sink"} else cluster.nodes[int(end)].name

    for link in published.get("links", []):
        found = cluster.link(ours(link["a"]), ours(link["b"]))
        assert found.bytes_per_s == pytest.approx(link["bandwidth_bytes_per_s"])
        assert found.latency_s == pytest.approx(link["latency_s"])
    if "uniform" in published:
        assert cluster.network.within_region.bytes_per_s == published["uniform"]["bandwidth_bytes_per_s"]
    assert cluster.network.nic_bytes_per_s == published["nic_bytes_per_s"]


@given(st.lists(st.tuples(st.sampled_from(["T4", "L4", "H100-80G"]), st.integers(1, 4), st.integers(1, 3)), min_size=1))
def test_every_expanded_node_has_its_own_name(entries):
    nodes = [{"gpu": gpu, "gpus_per_node": n, "count": count} for gpu, n, count in entries]
    cluster = Cluster.model_validate({"name": "made", "nodes": nodes})
    names = [n.name for n in cluster.nodes]
    assert len(names) == len(set(names)) == sum(count for _, _, count in entries)
    assert Cluster.model_validate(YAML(typ="safe", pure=True).load(cluster.to_yaml())) == cluster


def test_subset_keeps_links_among_what_is_left(tmp_path):
    cluster = load(tmp_path, TWO_REGIONS)
    part = cluster.subset(["A100-40G-0", "L4x2-1"])
    assert [n.name for n in part.nodes] == ["A100-40G-0", "L4x2-1"]
    assert part.link("A100-40G-0", "L4x2-1").bandwidth_gbps == 0.2


def test_a_gpu_of_ones_own(tmp_path):
    text = """
name: mine
gpus:
  B200: {memory_gb: 180, memory_bandwidth_gb_per_s: 8000, fp16_tflops: 2250}
nodes: [{gpu: B200, count: 2}]
"""
    cluster = load(tmp_path, text)
    assert cluster.gpu("B200").memory_gb == 180 and cluster.gpu("T4").memory_gb == 16
    assert Cluster.model_validate(YAML(typ="safe", pure=True).load(cluster.to_yaml())) == cluster
    with pytest.raises(InputError, match=r"gpus\.B200\.memory_gb = -1"):
        load(tmp_path, text.replace("memory_gb: 180", "memory_gb: -1"))
    with pytest.raises(InputError, match=r"unknown GPU 'B300': did you mean B200.*describe it under `gpus:`"):
        load(tmp_path, text.replace("gpu: B200", "gpu: B300"))


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (
            "gpu: H100-80G, gpus_per_node: 4, gpu_link: nvlnk",
            ["nodes[0].gpu_link = 'nvlnk'", "expected nvlink, xgmi, pcie"],
        ),
        ("gpu: H100-80G, gpus_per_node: 4, gpu_link: 900", ["nodes[0].gpu_link = 900", "expected nvlink, xgmi, pcie"]),
        (
            "gpu: H100-80G, gpus_per_node: 4, gpu_link: {latency_ms: 1}",
            ["nodes[0].gpu_link", "bandwidth_gbps: missing"],
        ),
        (
            "gpu: H100-80G, gpus_per_node: 4, gpu_link: {bandwidth_gbps: -1}",
            ["nodes[0].gpu_link", "bandwidth_gbps = -1", "greater than 0"],
        ),
        ("gpu: H100-80G, gpu_link: nvlink", ["nodes[0]", "gpu_link", "gpus_per_node of at least 2"]),
        ("gpu: L4, gpus_per_node: 2, gpu_link: nvlink", ["nodes[0].gpu_link = 'nvlink'", "expected pcie"]),
        ("gpu: B200, gpus_per_node: 2, nvlink: nvlink", ["nodes[0].nvlink", "unknown field", "gpu_link"]),
    ],
)
def test_each_mistake_in_a_link_between_gpus_is_named(tmp_path, node, expected):
    with pytest.raises(InputError) as caught:
        load(tmp_path, f"name: one\nnodes: [{{{node}}}]")
    message = str(caught.value)
    assert all(part in message for part in ("mine.yaml", *expected)) and "\n" not in message


def test_links_between_gpus_come_from_the_node_the_clusters_gpu_or_the_catalogue(tmp_path):
    text = """
name: links
memory_share: 0.85
gpus:
  B200: {memory_gb: 180, memory_bandwidth_gb_per_s: 8000, fp16_tflops: 2250,
         nvlink: {bandwidth_gbps: 5774, latency_ms: 0.0019}}
nodes:
  - {gpu: B200, gpus_per_node: 2}
  - {gpu: B200, gpus_per_node: 2, gpu_link: pcie}
  - {gpu: H100-80G, gpus_per_node: 4, count: 2}
  - {gpu: H100-80G, gpus_per_node: 4, gpu_link: pcie}
  - {gpu: L4, gpus_per_node: 2, gpu_link: {bandwidth_gbps: 100, latency_ms: 0.01}}
"""
    cluster = load(tmp_path, text)
    found = {n.name: cluster.gpu_link(n) for n in cluster.nodes}
    assert list(found) == [
        "B200x2-0", "B200x2-pcie-0", "H100-80Gx4-0", "H100-80Gx4-1", "H100-80Gx4-pcie-0", "L4x2-100gbps-0.01ms-0",
    ]  # fmt: skip
    assert (found["B200x2-0"].bandwidth_gbps, found["B200x2-0"].source) == (5774, "cluster links")
    assert found["B200x2-pcie-0"].name == found["H100-80Gx4-pcie-0"].name == "pcie"
    assert found["H100-80Gx4-0"].name == "nvlink"
    assert found["L4x2-100gbps-0.01ms-0"].bytes_per_s == 12.5e9
    assert cluster.memory_share == 0.85 == cluster.subset(["B200x2-0"]).memory_share
    assert Cluster.model_validate(YAML(typ="safe", pure=True).load(cluster.to_yaml())) == cluster


def test_two_kinds_of_machine_never_share_a_name():
    spec = {"memory_gb": 10, "memory_bandwidth_gb_per_s": 100, "fp16_tflops": 10}
    nodes = [{"gpu": "L4x2"}, {"gpu": "L4", "gpus_per_node": 2}]
    with pytest.raises(ValueError, match=r"both be called L4x2"):
        Cluster.model_validate({"name": "odd", "nodes": nodes, "gpus": {"L4x2": spec}})


@pytest.mark.parametrize("share", ["0", "1.2", "90%", ".nan"])
def test_a_share_of_memory_is_a_number_up_to_one(tmp_path, share):
    with pytest.raises(InputError, match=r"memory_share"):
        load(tmp_path, f"name: one\nmemory_share: {share}\nnodes: [{{gpu: T4}}]")


@pytest.mark.parametrize("field", ["memory_gb", "memory_bandwidth_gb_per_s", "fp16_tflops"])
def test_figures_of_a_gpu_are_within_reason(tmp_path, field):
    for value, words in (("1e-300", "expected at least 1e-9"), ("1e13", "less than or equal to 1000000000000")):
        figures = {"memory_gb": 24, "memory_bandwidth_gb_per_s": 300, "fp16_tflops": 100, field: value}
        spec = ", ".join(f"{name}: {v}" for name, v in figures.items())
        with pytest.raises(InputError, match=rf"gpus\.mine\.{field} = .*{words}"):
            load(tmp_path, f"name: one\nnodes: [{{gpu: mine}}]\ngpus:\n  mine: {{{spec}}}")


@pytest.mark.parametrize("field", ["within_region: {bandwidth_gbps: 1e-300}", "nic_gbps: 1e-10"])
def test_a_link_carries_at_least_a_bit_in_a_second(tmp_path, field):
    with pytest.raises(InputError, match=r"gbps = 1e-.*expected at least 1e-9"):
        load(tmp_path, f"name: one\nnodes: [{{gpu: T4}}]\nnetwork: {{{field}}}")
