"""Machines that a plan leaves out are named, with a reason that the cluster's file lets one check."""

import pytest

import helix_kit as hk
from helix_kit.placement import Problem
from helix_kit.search.idle import idle_notes


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
    assert "0.001 gbps" in idle
    needed = float(idle.split("would need ")[1].split(" gbps")[0])
    assert needed > 0.001
    assert "USD an hour" in price


def test_a_fast_link_is_not(notes):
    assert "would need" not in notes[10.0][0]
    assert "layers" in notes[10.0][0]


def test_the_price_is_that_of_the_machines_in_use(notes):
    usd = hk.Cluster.preset("single24").gpu("A100-40G").price_usd_per_hour
    assert f"{4 * usd:.2f} USD" in notes[10.0][-1]


def test_nothing_is_said_where_all_are_used():
    cluster = hk.Cluster.model_validate({"name": "pair", "nodes": [{"gpu": "A100-40G", "count": 4}]})
    problem = Problem.of(cluster, hk.Model.preset("llama-30b"))
    placement = {f"A100-40G-{i}": (15 * i, 15 * i + 15) for i in range(4)}
    assert idle_notes(problem, problem.max_flow(placement)) == []
