"""`explain` and the plan say how nodes with several GPUs divide their layers."""

from __future__ import annotations

import pytest

from helix_kit import Cluster, Model, Plan, plan
from helix_kit.analysis import explain
from helix_kit.analysis.node_splits import split_words

MODEL = Model.preset("llama-30b")
SLOW = {"bandwidth_gbps": 10, "latency_ms": 0.05}


def planned(model: Model = MODEL, gpu: str = "H100-80G", **fields: object) -> Plan:
    nodes = [{"gpu": gpu, "gpus_per_node": 2, "count": 8 if gpu == "L4" else 1, **fields}]
    return plan(Cluster.model_validate({"name": "few", "nodes": nodes}), model, method="proportional")


@pytest.mark.parametrize(
    ("fields", "fact", "sentence"),
    [
        ({}, "2 GPUs share each layer (tensor parallel 2)", ", which serves 1.4 times as much as layers in turn."),
        (
            {"gpu_link": SLOW},
            "2 GPUs take the layers in turn",
            ", which serves 4.8 times as much as tensor parallel 2.",
        ),
        ({"tensor_parallel": 2}, "2 GPUs share each layer (tensor parallel 2)", ", as the cluster's file says."),
        (
            {"tensor_parallel": 1},
            "2 GPUs take the layers in turn",
            ", as the cluster's file says; by the estimate, tensor parallel 2 would serve 1.4 times as much.",
        ),
    ],
)
def test_the_plan_says_how_gpus_divide_layers(fields: dict, fact: str, sentence: str, tmp_path) -> None:
    made = planned(**fields)
    [kind] = made.profiles
    assert made._facts()["GPUs in a node"] == f"{kind}: {fact}"
    assert split_words(made) == [f"{kind}: {fact}{sentence}"]
    assert split_words(made)[0] in explain(made).splitlines()
    made.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == made


def test_nodes_of_one_gpu_and_measured_tables_are_not_spoken_of() -> None:
    assert split_words(planned(gpus_per_node=1)) == []
    measured = planned(Model.preset("llama2-70b"), gpu="L4")
    assert split_words(measured) == [] and "GPUs in a node" not in measured._facts()
