"""T(k) against the published table of every machine mix, kind and number of layers."""

from __future__ import annotations

import ast
import csv

import pytest

from helix_kit.model import Model
from helix_kit.profiles import Curve, shipped_profiles, throughput_tables

MODELS = {"llama30b": "llama-30b", "llama70b": "llama2-70b"}
KINDS = {"A100": "A100-40G", "V100": "V100-16G"}


def test_agrees_with_the_published_table(shared):
    rows = list(csv.DictReader((shared / "reference" / "node_throughput.csv").open()))
    assert len(rows) == 325
    tables: dict[tuple[str, str], dict[str, tuple[float, ...]]] = {}
    for row in rows:
        model = Model.preset(MODELS[row["model"]])
        key = (row["model"], row["machine_num_dict"])
        if key not in tables:
            counts = {KINDS.get(k, k): n for k, n in ast.literal_eval(row["machine_num_dict"]).items()}
            tables[key] = throughput_tables(counts, model, shipped_profiles(model.name))
        ours = tables[key][KINDS.get(row["gpu_type"], row["gpu_type"])][int(row["num_layers"]) - 1]
        assert ours == pytest.approx(float(row["tokens_per_s"]), rel=1e-6)


def test_figures_of_single24():
    """A few published values, so that the check stands where the reference table is absent."""
    model = Model.preset("llama2-70b")
    tables = throughput_tables({"A100-40G": 4, "L4": 8, "T4": 12}, model, shipped_profiles(model.name))
    assert len(tables["A100-40G"]) == 12 and len(tables["T4"]) == 4
    assert tables["A100-40G"][11] == pytest.approx(952.1073985, rel=1e-9)


def test_a_machine_without_room_for_a_request_serves_nothing_and_harms_nobody():
    model = Model.preset("llama2-70b")
    profiles = shipped_profiles(model.name)
    cramped = profiles["T4"].model_copy(update={"kv_capacity_layer_tokens": (64, 128, 192, 256)})
    tables = throughput_tables({"L4": 30, "T4": 4}, model, {**profiles, "T4": cramped})
    assert tables["T4"] == (0.0,) * 4
    assert min(tables["L4"]) > 0


def test_a_machine_with_room_for_a_request_serves_something_however_small_its_share():
    """The published rounding gives such a machine an empty batch, and so nothing, where its layers are few."""
    model = Model.preset("llama2-70b")
    profiles = shipped_profiles(model.name)
    fast = profiles["T4"].model_copy(
        update={
            "kv_capacity_layer_tokens": (4096, 8192, 12288, 16384),
            "decode_ms_per_layer": Curve(x=(0, 1, 512), y=(0, 0.5, 1.0)),
            "prefill_ms_per_layer": Curve(x=(0, 8192), y=(0, 8.0)),
        }
    )
    table = throughput_tables({"L4": 30, "T4": 1}, model, {**profiles, "T4": fast})["T4"]
    for k, tokens_per_s in enumerate(table, 1):
        assert 0 < tokens_per_s <= 1000 / (k * 0.5) + 1e-9, "at most one request at a time, 0.5 ms a layer"
