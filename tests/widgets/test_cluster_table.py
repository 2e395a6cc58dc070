"""The table of machines: what is not edited survives, names and links follow their machines."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helix_kit.cluster import Cluster
from helix_kit.widgets.cluster_table import TableRow, apply_table, table_of


@pytest.mark.parametrize("name", ["single24", "geo24", "hetero42"])
def test_an_unedited_table_describes_the_same_machines(name):
    cluster = Cluster.preset(name)
    after, lost = apply_table(cluster, table_of(cluster), name=name, network=cluster.network)
    assert after == cluster and lost == ()


@given(st.lists(st.tuples(st.sampled_from(["T4", "L4"]), st.integers(1, 2), st.integers(0, 4)), max_size=4))
def test_the_table_counts_machines_and_names_stay_unique(rows):
    start = Cluster.model_validate({"name": "a", "nodes": [{"gpu": "T4", "count": 3}]})
    table = [
        TableRow(gpu, per_node, count, "local", ("T4-0", "T4-2") if i == 0 else ())
        for i, (gpu, per_node, count) in enumerate(rows)
    ]
    wanted = sum(row.count for row in table)
    if not wanted:
        with pytest.raises(ValueError, match="node"):
            apply_table(start, table, name="b", network=start.network)
        return
    after, _ = apply_table(start, table, name="b", network=start.network)
    assert len({n.name for n in after.nodes}) == len(after.nodes) == wanted
    assert sorted(n.kind for n in after.nodes) == sorted(r.kind for r in table for _ in range(r.count))


def test_a_link_is_lost_with_its_machine_and_follows_a_change_of_kind():
    start = Cluster.model_validate(
        {
            "name": "three",
            "nodes": [{"gpu": "L4", "count": 2}, {"gpu": "T4", "name": "rack"}],
            "network": {
                "links": [
                    {"between": ["L4-0", "rack"], "bandwidth_gbps": 3},
                    {"source": "L4-1", "target": "coordinator", "bandwidth_gbps": 4},
                ]
            },
        }
    )
    table = [TableRow("A10G", 1, 1, "local", ("L4-1",)), TableRow("L4", 1, 1, "local", ("rack",))]
    after, lost = apply_table(start, table, name="two", network=start.network, coordinator_region="local")
    assert [n.name for n in after.nodes] == ["A10G-0", "rack"], "a name that does not tell the kind stays"
    assert [link.ends for link in lost] == [("L4-0", "rack")]
    assert after.link("A10G-0", "coordinator").bandwidth_gbps == 4


LINKED = {
    "name": "linked",
    "memory_share": 0.8,
    "gpus": {"mine": {"memory_gb": 90, "memory_bandwidth_gb_per_s": 2000, "fp16_tflops": 400, "price_usd_per_hour": 3}},
    "nodes": [
        {"gpu": "A100-80G", "gpus_per_node": 4},
        {"gpu": "A100-80G", "gpus_per_node": 4, "gpu_link": "pcie", "count": 2},
        {"gpu": "mine", "gpus_per_node": 2, "gpu_link": {"bandwidth_gbps": 100, "latency_ms": 0.01}},
    ],
}


def test_links_between_gpus_and_the_share_of_memory_survive_an_edit():
    cluster = Cluster.model_validate(LINKED)
    table = table_of(cluster)
    assert [(row.kind, row.count) for row in table] == list(cluster.kind_counts.items())
    after, _ = apply_table(cluster, table, name="linked", network=cluster.network)
    assert after == cluster
    more, _ = apply_table(cluster, [*table[:1], replace(table[1], count=3)], name="more", network=cluster.network)
    assert more.kind_counts == {"A100-80Gx4": 1, "A100-80Gx4-pcie": 3} and more.memory_share == 0.8
