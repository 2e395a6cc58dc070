"""Figures 1 and 2: three splits and a flow network."""

import pytest
from committed import FIGURES

from helix_kit.experiments.machinery.files import load


def test_worked_example_gets_better_from_split_to_split():
    table = load("worked-example", FIGURES).drop_duplicates("split").set_index("split")
    flow = table["max_flow_tokens_per_s"]
    assert flow["uniform"] < flow["balanced"] < flow["network-aware"]
    # What limits the balanced chain is the link: 0.1 Gbit/s over 13,314 bytes a token.
    assert flow["balanced"] == pytest.approx(0.1e9 / 8 / 13314, rel=1e-3) and table["link_in_min_cut"]["balanced"]


def test_flow_network_is_a_flow_of_the_size_of_its_cut():
    import networkx as nx

    table = load("flow-network", FIGURES)
    graph = nx.DiGraph()
    for row in table.to_dict("records"):
        inside = row["source"] == row["target"]
        # A machine is an edge from where requests come in to where they leave; the coordinator, both ends.
        tail = f"{row['source']} in" if inside else f"{row['source']} out"
        head = f"{row['target']} out" if inside else f"{row['target']} in"
        graph.add_edge(tail, head, capacity=round(1000 * row["capacity_tokens_per_s"]))
    most = nx.maximum_flow_value(graph, "coordinator out", "coordinator in") / 1000
    into = table[(table["target"] == "coordinator") & (table["source"] != "coordinator")]["flow_tokens_per_s"].sum()
    assert into == pytest.approx(most, rel=1e-4)
    assert table[table["in_min_cut"]]["capacity_tokens_per_s"].sum() == pytest.approx(most, rel=1e-4)
    assert (table["flow_tokens_per_s"] <= table["capacity_tokens_per_s"] * (1 + 1e-9)).all()
