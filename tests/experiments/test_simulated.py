"""Simulations are shared by what they depend on, and nothing else; load rules deal out every request."""

import pytest

from helix_kit import Cluster, Model, Workload, plan
from helix_kit.experiments.figures.common import simulated as module
from helix_kit.experiments.figures.common.limits import Questions
from helix_kit.experiments.figures.common.simulated import simulated
from helix_kit.experiments.figures.equal_load import dealt, faster
from helix_kit.experiments.machinery.registry import Context
from helix_kit.simulator import Feed, simulate


@pytest.fixture(scope="module")
def calls():
    made = plan(Cluster.preset("cluster10"), Model.preset("llama-30b"), method="petals")
    requests = Workload.of([(0.0, 64, 8), (0.5, 32, 4), (1.0, 128, 6)])
    return [
        {"plan": made, "workload": requests, "mode": "online", "execution": "layerwise", "warmup_s": 0.0,
         "duration_s": 60.0, "seed": 0}
    ]  # fmt: skip


def test_the_second_time_it_is_read_and_says_the_same(calls, tmp_path, monkeypatch):
    first = simulated(calls, Context(folder=tmp_path))
    assert first.metrics == module.metrics_of(simulate(**calls[0]))
    monkeypatch.setattr(module, "simulate", lambda **call: pytest.fail("simulated again"))
    renamed = calls[0]["plan"].model_copy(update={"method": "by hand", "seconds": 9.0})
    again = simulated([{**calls[0], "plan": renamed}], Context(folder=tmp_path))
    assert again == first and first.nodes.keys() <= set(calls[0]["plan"].placement)


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"duration_s": 61.0}, {"policy": "swarm"}, {"feed": Feed(3)}, {"kv_capacity": {}}]
)
def test_whatever_changes_the_run_changes_the_key(calls, change):
    assert module._digest([{**calls[0], **change}]) != module._digest(calls)


def test_requests_and_placement_are_part_of_the_key(calls):
    other = {**calls[0], "workload": Workload.of([(0.0, 64, 8), (0.5, 32, 4), (1.0, 128, 7)])}
    swarm = plan(Cluster.preset("cluster10"), Model.preset("llama-30b"), method="swarm")
    keys = {module._digest(c) for c in (calls, [other], [{**calls[0], "plan": swarm}], [*calls, *calls])}
    assert len(keys) == 4


def test_a_fast_run_is_shorter_and_kept_apart(calls, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(module, "simulate", lambda **call: seen.append(call["duration_s"]) or simulate(**call))
    for fast in (False, True):
        simulated(calls, Context(fast=fast, folder=tmp_path))
    assert seen == [60.0, 60.0 * module.FAST_SHARE]


def test_requests_are_dealt_in_proportion_and_none_is_lost():
    requests = Workload.of([(float(i), 10 + i, 5) for i in range(90)])
    hands = dealt(requests, (2.0, 1.0, 0.0))
    assert [len(h) for h in hands] == [60, 30, 0]
    assert sorted(r.input_tokens for h in hands for r in h) == [r.input_tokens for r in requests]
    quick = faster(requests, 2.0)
    assert [r.arrival_s for r in quick[:3]] == [0.0, 0.5, 1.0] and quick[5].input_tokens == 15


def test_a_count_of_questions_ends_a_search_at_the_same_place():
    stop = Questions(3)
    assert [stop() for _ in range(4)] == [False, False, True, True]
