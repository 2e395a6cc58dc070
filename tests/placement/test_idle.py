"""Machines that a plan leaves out are named, with a reason that the cluster's file lets one check."""

import pytest

import helix_kit as hk
from helix_kit.placement import Problem
from helix_kit.placement.idle import idle_notes


def problem_of(between_gbps):
    nodes = [{"gpu": "A100-40G", "count": 4, "region": "a"}, {"gpu": "L4", "count": 2, "region": "b"}]
    network = {
        "within_region": {"bandwidth_gbps": 10, "latency_ms": 1},
        "between_regions": {"bandwidth_gbps": between_gbps, "latency_ms": 30},
    }
    cluster = hk.Cluster.model_validate(
        {"name": "cities", "coordinator": {"region": "a"}, "nodes": nodes, "network": network}
    )
    return Problem.of(cluster, hk.Model.preset("llama-30b"))


@pytest.fixture(scope="module")
def notes():
    found = {}
    for gbps in (0.001, 10.0):
        problem = problem_of(gbps)
        placement = {f"A100-40G-{i}": (15 * i, 15 * i + 15) for i in range(4)}
        found[gbps] = idle_notes(problem, problem.max_flow(placement))
    return found


def test_a_link_that_is_too_slow_is_the_reason(notes):
    (idle, price) = notes[0.001]
    assert idle.startswith("not used: L4-0, L4-1 (")
    assert "0.001 gbps" in idle and "(their fastest link" in idle and "each would need" in idle
    needed = float(idle.split("would need ")[1].split(" gbps")[0])
    assert needed > 0.001
    assert "USD an hour" in price


def test_a_fast_link_is_not(notes):
    assert "would need" not in notes[10.0][0]
    assert "layers" in notes[10.0][0]


def test_one_machine_is_spoken_of_as_one():
    problem = problem_of(0.001)
    used = {f"A100-40G-{i}": (15 * i, 15 * i + 15) for i in range(4)}
    alone = Problem.of(problem.cluster.subset([*used, "L4-1"]), problem.model)
    [idle, _] = idle_notes(alone, alone.max_flow(used))
    assert idle.startswith("not used: L4-1 (its fastest link") and "it would need" in idle


def test_the_price_is_that_of_the_machines_in_use(notes):
    usd = hk.Cluster.preset("single24").gpu("A100-40G").price_usd_per_hour
    assert f"{4 * usd:.2f} USD" in notes[10.0][-1]


def test_a_machine_without_a_link_needs_no_wider_one():
    problem = problem_of(10.0)
    nothing = {"between": ("a", "b"), "bandwidth_gbps": 0}
    network = problem.cluster.network.model_dump() | {"links": [nothing]}
    cluster = hk.Cluster.model_validate(problem.cluster.model_dump() | {"network": network})
    problem = Problem.of(cluster, problem.model)
    placement = {f"A100-40G-{i}": (15 * i, 15 * i + 15) for i in range(4)}
    assert "(no link connects them with those in use)" in idle_notes(problem, problem.max_flow(placement))[0]


def test_of_many_machines_the_first_are_named():
    problem = Problem.of(
        hk.Cluster.model_validate(
            {"name": "many", "nodes": [{"gpu": "A100-40G", "count": 4}, {"gpu": "T4", "count": 9}]}
        ),
        hk.Model.preset("llama-30b"),
    )
    placement = {f"A100-40G-{i}": (15 * i, 15 * i + 15) for i in range(4)}
    note = idle_notes(problem, problem.max_flow(placement), otherwise="{them}: another reason")[0]
    assert note == "not used: T4-0, T4-1, T4-2, T4-3, T4-4, 4 more (them: another reason)"


def test_a_flow_plan_names_them_too():
    cluster = hk.Cluster.model_validate({
        "name": "tiny",
        "gpus": {"Tiny": {"memory_gb": 1, "memory_bandwidth_gb_per_s": 100, "fp16_tflops": 5}},
        "nodes": [{"gpu": "A100-80G"}, {"gpu": "Tiny"}],
    })  # fmt: skip
    plan = hk.plan(cluster, "llama-30b", time_limit_s=2)
    assert plan.notes[0] == "not used: Tiny-0 (its memory does not hold one layer of llama-30b)"
    assert plan.notes[1].startswith("the machines in use cost ")


def test_nothing_is_said_where_all_are_used():
    cluster = hk.Cluster.model_validate({"name": "pair", "nodes": [{"gpu": "A100-40G", "count": 4}]})
    problem = Problem.of(cluster, hk.Model.preset("llama-30b"))
    placement = {f"A100-40G-{i}": (15 * i, 15 * i + 15) for i in range(4)}
    assert idle_notes(problem, problem.max_flow(placement)) == []
