"""Figure 4, placements and the catalogue of GPUs."""

import csv
from itertools import pairwise

import pytest
from committed import FIGURES, ROOT

from helix_kit.experiments.machinery.files import load


def test_topology_shows_the_published_flow_and_two_whole_pipelines():
    table = load("topology", FIGURES)
    links = table[table["what"] == "link"]
    into = links[links["source"] == "coordinator"]["tokens_per_s"].sum()
    assert into == pytest.approx(1212.18, abs=0.01)  # the published solver log
    for name in table["source"][table["what"] == "node"]:
        through = links.groupby("target")["tokens_per_s"].sum().get(name, 0.0)
        assert through == pytest.approx(links.groupby("source")["tokens_per_s"].sum().get(name, 0.0), abs=0.01)
    known = set(zip(links["source"], links["target"], strict=True))
    ways = [table[table["what"] == f"request {i}"] for i in (1, 2)]
    for way in ways:
        assert way["start"].iloc[0] == 0 and way["end"].iloc[-1] == 80
        assert list(way["end"][:-1]) == list(way["start"][1:])
        nodes = ["coordinator", *way["source"], "coordinator"]
        assert set(pairwise(nodes)) <= known
    assert set(ways[0]["source"]) != set(ways[1]["source"])


def test_placement_pictures_rank_as_published_within_capacity():
    table = load("placement-pictures", FIGURES)
    flow = table.groupby("method")["max_flow_tokens_per_s"].first()
    assert flow["Helix"] == pytest.approx(1212.18, abs=0.01)
    assert flow["Helix"] > 1.2 * flow["Petals"] > 1.2 * 1.2 * flow["Swarm"]
    assert (table["flow_tokens_per_s"] <= table["capacity_tokens_per_s"] * (1 + 1e-6)).all()
    held = table.assign(layers=table["end"] - table["start"]).groupby("method")["layers"].sum()
    assert (held >= 80).all() and table["end"].max() == 80


def test_catalogue_is_the_data_sheet():
    table = load("gpu-catalogue", FIGURES).set_index("gpu")
    rows = list(csv.DictReader((ROOT / "data" / "gpus.csv").read_text(encoding="utf-8").splitlines()))
    rows = [row for row in rows if not row["gpu"].startswith("CPU")]  # the emulated workers of the laptop
    assert len(rows) == len(table)
    # Two figures that everybody can look up: NVIDIA's datasheets of A100 PCIe 40 GB and T4.
    assert table.loc["A100-40G", "memory_bandwidth_gb_per_s"] == 1555 and table.loc["T4", "fp16_tflops"] == 65
    for row in rows:
        assert float(row["memory_gb"]) == table.loc[row["gpu"], "memory_gb"]
