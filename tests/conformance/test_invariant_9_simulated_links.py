"""Invariant 9: links carry at most their bandwidth over any second; and network cards no more than theirs."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import cases

from helix_kit.simulator import simulate


@settings(max_examples=80)
@given(cases(faults=False), st.floats(0, 20), st.sampled_from(["range", "layerwise"]))
def test_no_second_carries_more_than_the_bandwidth(case, begin, execution):
    run = simulate(
        case.plan, case.workload, mode="online", policy=case.policy, seed=case.seed, execution=execution,
        warmup_s=begin, duration_s=1.0,
    )  # fmt: skip
    sent, received = Counter(), Counter()
    for link in run.links:
        assert link.bytes_sent <= case.plan.cluster.link(link.source, link.target).bytes_per_s * (1 + 1e-9)
        assert 0 <= link.busy <= 1 + 1e-9
        sent[link.source] += link.bytes_sent
        received[link.target] += link.bytes_sent
    card = case.plan.cluster.network.nic_gbps * 1e9 / 8
    assert all(amount <= card * (1 + 1e-9) for amount in [*sent.values(), *received.values()])


@settings(max_examples=40)
@given(cases(faults=False))
def test_time_of_a_node_adds_up(case):
    run = simulate(case.plan, case.workload, policy=case.policy, seed=case.seed, duration_s=60)
    for use in run.nodes.values():
        assert use.busy >= 0 and use.blocked >= 0 and use.starved >= -1e-9
        assert abs(use.busy + use.blocked + use.starved - 1) < 1e-9
