"""`helix-kit profile`: what it writes, and what it leaves alone."""

from __future__ import annotations

import csv
import json
import re

import pytest

pytest.importorskip("torch")

from helix_kit import Cluster
from helix_kit.runtime.weights.tiny import tiny_checkpoint

QUICK = ("--layers", "1", "--repeats", "1", "--memory-gb", "1")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("profile") / "tiny")


def test_a_cluster_that_was_edited_is_left_alone(helix_kit, weights, tmp_path):
    assert helix_kit("profile", weights, *QUICK, "-o", tmp_path)[0] == 0
    cluster, times = tmp_path / "cluster.yaml", tmp_path / "layer_times.csv"
    assert Cluster.load(cluster).nodes
    cluster.write_text("mine\n")
    times.write_text("old\n")
    code, _, err = helix_kit("profile", weights, *QUICK, "-o", tmp_path)
    assert code == 0 and "is left as it is" in err
    assert cluster.read_text() == "mine\n" and times.read_text() != "old\n"


def test_json_has_every_point_that_was_timed(helix_kit, weights):
    code, out, err = helix_kit("profile", weights, *QUICK, "--kind", "mine", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert told["kind"] == "mine" and told["max_layers"] > 0 and told["head_ms"] > 0
    assert {point["phase"] for point in told["points"]} == {"prefill", "decode"}
    assert all(0 < p["low_ms"] <= p["ms_per_layer"] <= p["high_ms"] for p in told["points"])


def test_the_table_shows_the_layer_with_its_share_of_the_projection_as_the_file_has_it(helix_kit, weights, tmp_path):
    code, out, err = helix_kit("profile", weights, *QUICK, "-o", tmp_path)
    assert code == 0, err
    rows = list(csv.DictReader((tmp_path / "layer_times.csv").open()))
    in_file = {(r["phase"], r["tokens"]): float(r["ms_per_layer"]) for r in rows if float(r["tokens"]) > 0}
    shown = re.findall(r"(prefill|decode)\W+(\d+)\W+([\d.]+)\W+[\d.]+ to [\d.]+\W+([\d.]+)", out)
    assert len(shown) == len(in_file) > 0
    head_ms, share_ms = map(float, re.search(r"projection: ([\d.]+) ms a token, ([\d.]+) ms of it", out).groups())
    assert share_ms == pytest.approx(head_ms / 6, abs=1e-3, rel=1e-3)
    for phase, tokens, alone, together in shown:
        assert float(together) == pytest.approx(in_file[phase, tokens], abs=1e-3, rel=1e-3)
        assert float(together) - float(alone) == pytest.approx(share_ms, abs=2e-3, rel=1e-3)
