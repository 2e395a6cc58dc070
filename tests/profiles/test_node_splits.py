"""How nodes with several GPUs divide their layers: estimates of each way, and the choice between them."""

from __future__ import annotations

import pytest

from helix_kit.cluster import Cluster, Node
from helix_kit.model import Model
from helix_kit.placement.problem import Problem
from helix_kit.profiles import estimate, how_divided, profiles_for, shipped_profiles, splits_of
from helix_kit.profiles.machine_speed import machine_tables
from helix_kit.profiles.node_splits import undivided

MODEL = Model.preset("llama3.1-70b")
FAST, SLOW = {"bandwidth_gbps": 3600, "latency_ms": 0.001}, {"bandwidth_gbps": 10, "latency_ms": 0.05}


def node_of(gpus: int, **fields: object) -> tuple[Cluster, Node]:
    nodes = [{"gpu": "A100-80G", "gpus_per_node": gpus, **fields}]
    cluster = Cluster.model_validate({"name": "one", "nodes": nodes})
    return cluster, cluster.nodes[0]


def test_two_gpus_in_turn_are_two_machines_behind_each_other() -> None:
    """One node with 2 k layers in turn carries what each of two machines with k layers does."""
    alone = estimate(Node(name="n", gpu="A100-80G"), MODEL)
    turns = estimate(Node(name="n", gpu="A100-80G", gpus_per_node=2, tensor_parallel=1), MODEL)
    assert (turns.tensor_parallel, turns.groups_in_turn) == (1, 2)
    for batch in (2, 8, 64, 512):
        assert turns.decode_ms_per_layer(batch) == pytest.approx(alone.decode_ms_per_layer(batch / 2), rel=1e-6)
    one, two = machine_tables(MODEL, {"one": alone, "two": turns}).values()
    for k in (5, 10, 20):
        assert two[2 * k - 1] == pytest.approx(one[k - 1], rel=0.12)
        # The GPU with the odd layer sets the pace.
        assert two[2 * k - 2] == pytest.approx(two[2 * k - 1], rel=0.03)
    assert turns.of_range(0, 20) is turns and turns.of_range(0, 21).groups_in_turn == 1
    assert turns.of_range(3, 8).decode_ms_per_layer(8) == pytest.approx(6 / 5 * turns.decode_ms_per_layer(8))


def test_a_request_alone_takes_as_long_in_turn_as_on_one_gpu() -> None:
    alone, turns = (
        estimate(Node(name="n", gpu="A100-80G", gpus_per_node=n, tensor_parallel=1), MODEL).decode_ms_per_layer(1)
        for n in (1, 4)
    )
    assert turns == alone


def test_the_link_decides() -> None:
    chosen = {}
    for name, link in (("fast", FAST), ("slow", SLOW)):
        splits = splits_of(*node_of(2, gpu_link=link), MODEL)
        assert sorted(split.tensor_parallel for split in splits) == [1, 2]
        assert all(split.tensor_parallel * split.groups == 2 for split in splits)
        assert [s.work for s in splits] == sorted((s.work for s in splits), reverse=True)
        chosen[name] = splits[0].tensor_parallel
        cluster, node = node_of(2, gpu_link=link)
        profile = profiles_for(cluster, MODEL)[node.kind]
        assert (profile.tensor_parallel, profile.kind) == (chosen[name], node.kind)
        # What is chosen carries more than each way that a file may give.
        best = Problem.of(cluster, MODEL).compute_bound
        for split in splits:
            given, _ = node_of(2, gpu_link=link, tensor_parallel=split.tensor_parallel)
            assert Problem.of(given, MODEL).compute_bound == pytest.approx(split.work / 80)
            assert Problem.of(given, MODEL).compute_bound <= best * (1 + 1e-9)
    assert chosen == {"fast": 2, "slow": 1}


def test_only_what_divides_is_chosen() -> None:
    odd = MODEL.model_copy(update={"num_heads": 9, "num_kv_heads": 3})
    assert [s.tensor_parallel for s in splits_of(*node_of(2), odd)] == [1]
    assert undivided(odd, 2) == ("num_heads", 9, "a multiple of 2")
    six = MODEL.model_copy(update={"num_heads": 24, "num_kv_heads": 6, "intermediate_size": 32})
    assert undivided(six, 4) == ("num_kv_heads", 6, "a multiple or a divisor of 4")


def test_key_heads_that_several_gpus_hold_take_memory_on_each() -> None:
    few = MODEL.model_copy(update={"num_kv_heads": 2})
    held, shared = (estimate(node_of(8, tensor_parallel=t)[1], few).kv_capacity(8) for t in (8, 2))
    assert held == shared // 4


def test_measured_tables_are_of_gpus_that_share_each_layer() -> None:
    table = shipped_profiles("llama2-70b")["L4x2"]
    model = Model.preset("llama2-70b")
    nodes = [
        {"gpu": "L4", "gpus_per_node": 2, **given} for given in ({}, {"tensor_parallel": 2}, {"tensor_parallel": 1})
    ]
    found = profiles_for(Cluster.model_validate({"name": "three", "nodes": nodes}), model)
    assert found["L4x2"] == table
    assert found["L4x2-tp2"] == table.model_copy(update={"kind": "L4x2-tp2", "tensor_parallel": 2})
    assert found["L4x2-tp1"].source.startswith("roofline estimate") and found["L4x2-tp1"].groups_in_turn == 2


def test_files_of_plain_profiles_do_not_change() -> None:
    assert not {"tensor_parallel", "groups_in_turn"} & set(shipped_profiles("llama2-70b")["L4x2"].model_dump())
    assert how_divided(2, 1) == "2 GPUs share each layer (tensor parallel 2)"
