"""Which profile a kind of machine gets: names of models decide nothing, own GPUs are not the catalogue's."""

from __future__ import annotations

import json

import pytest

from helix_kit import Plan, plan
from helix_kit.cluster import Cluster
from helix_kit.model import Model
from helix_kit.profiles import load_profiles, measured_for, profiles_for, shipped_profiles
from helix_kit.profiles.roofline import is_estimate

SINGLE24 = Cluster.preset("single24")
LLAMA2_70B = {
    "model_type": "llama", "hidden_size": 8192, "num_hidden_layers": 80, "num_attention_heads": 64,
    "num_key_value_heads": 8, "intermediate_size": 28672, "vocab_size": 32000, "torch_dtype": "float16",
}  # fmt: skip


def in_folder(tmp_path, name, **changes):
    folder = tmp_path / name
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**LLAMA2_70B, **changes}))
    return Model.from_hf(folder)


SMALL = {"hidden_size": 1024, "num_attention_heads": 8, "intermediate_size": 2816, "num_hidden_layers": 24}


@pytest.mark.parametrize("changes", [SMALL, {"vocab_size": 128256}, {"torch_dtype": "float32"}, {}])
def test_the_name_of_a_folder_decides_nothing(tmp_path, changes):
    named, other = (in_folder(tmp_path, name, **changes) for name in ("llama2-70b", "other"))
    profiles = [profiles_for(SINGLE24, model) for model in (named, other)]
    for kind in SINGLE24.kind_counts:
        first, second = (p[kind].model_dump(exclude={"model"}) for p in profiles)
        assert first == second
        assert is_estimate(profiles[0][kind]) == bool(changes)


@pytest.mark.parametrize("name", ["llama2-70b", "llama-30b"])
def test_presets_keep_the_published_tables(name):
    assert profiles_for(SINGLE24, Model.preset(name)) == {k: shipped_profiles(name)[k] for k in SINGLE24.kind_counts}


def test_a_layer_of_other_weight_is_another_layer():
    """Such as one whose weights were quantised: the sizes are the same, the bytes are not."""
    preset = Model.preset("llama2-70b")
    assert measured_for(preset.model_copy(update={"num_layers": 8, "name": "short"})) == shipped_profiles("llama2-70b")
    assert measured_for(preset.model_copy(update={"layer_gb": preset.layer_gb / 2})) == {}


def test_a_gpu_of_the_clusters_own_is_not_the_one_of_the_table():
    own = {"memory_gb": 96, "memory_bandwidth_gb_per_s": 3000, "fp16_tflops": 500}
    nodes = [{"gpu": "L4"}, {"gpu": "L4", "gpus_per_node": 2}, {"gpu": "T4"}]
    cluster = Cluster.model_validate({"name": "own", "nodes": nodes, "gpus": {"L4": own}})
    model = Model.preset("llama2-70b")
    found = profiles_for(cluster, model)
    assert found["T4"] == shipped_profiles("llama2-70b")["T4"]
    assert all("cluster own" in found[kind].source for kind in ("L4", "L4x2"))
    assert found["L4"].max_layers > shipped_profiles("llama2-70b")["L4"].max_layers
    # What the user measured comes first, also on such a GPU.
    given = profiles_for(cluster, model, {"L4": found["T4"]})["L4"]
    assert given == found["T4"].model_copy(update={"kind": "L4"})


def test_a_plan_with_a_table_under_other_names_reads_back(tmp_path):
    """Neither the model nor the kind of machine has the names of the table."""
    node = {"gpu": "L4", "gpus_per_node": 2, "gpu_link": "pcie", "count": 7}
    cluster = Cluster.model_validate({"name": "pcie", "nodes": [node]})
    made = plan(cluster, in_folder(tmp_path, "mine"), time_limit_s=10)
    assert {p.source for p in made.profiles.values()} == {"measured table llama2-70b"}
    made.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == made


def test_measured_tables_of_a_user_get_no_published_starting_points(tmp_path):
    from helix_kit._files import data_dir

    for file in ("layer_times.csv", "limits.csv"):
        (tmp_path / file).write_text((data_dir() / "profiles" / "llama2-70b" / file).read_text())
    assert load_profiles(tmp_path, "llama2-70b")["L4"].typical_layers is None
    assert shipped_profiles("llama2-70b")["L4"].typical_layers == 4


def test_another_link_between_gpus_is_another_machine():
    nodes = [{"gpu": "L4", "gpus_per_node": 2}, {"gpu": "L4", "gpus_per_node": 2, "gpu_link": "pcie"},
             {"gpu": "L4", "gpus_per_node": 2, "gpu_link": {"bandwidth_gbps": 400, "latency_ms": 0.002}}]  # fmt: skip
    cluster = Cluster.model_validate({"name": "links", "nodes": nodes})
    found = profiles_for(cluster, Model.preset("llama2-70b"))
    table = shipped_profiles("llama2-70b")["L4x2"]
    assert found["L4x2"] == table
    assert found["L4x2-pcie"] == table.model_copy(update={"kind": "L4x2-pcie"}), "PCIe is the usual link of an L4"
    assert is_estimate(found["L4x2-400gbps-0.002ms"])
