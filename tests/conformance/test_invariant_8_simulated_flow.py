"""Invariant 8: flow in = flow out at each node; flow <= capacity on each edge. In the plan, and in what was sent."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from simulated import cases, plans

from helix_kit.cluster import COORDINATOR
from helix_kit.simulator import simulate


@settings(max_examples=60)
@given(plans())
def test_the_plans_flow_is_a_flow(plan):
    balance = Counter()
    for (source, target), rate in plan.flow_edges.items():
        balance[source] -= rate
        balance[target] += rate
        assert rate <= plan.max_flow.capacities[source, target] * (1 + 1e-9)
    for node in plan.placement:
        assert balance[node] == pytest.approx(0, abs=1e-6 * plan.flow_tokens_per_s)
        assert plan.max_flow.through(node) <= plan.max_flow.capacities[node, node] * (1 + 1e-9)


@settings(max_examples=60)
@given(cases(faults=False))
def test_tokens_in_equal_tokens_out_at_each_node(case):
    """When all is finished, each node has sent on every token that it received (published rules)."""
    run = simulate(
        case.plan, case.workload, policy=case.policy, seed=case.seed, execution="layerwise", duration_s=3000,
    )  # fmt: skip
    assert run.summary()["in_flight"] == 0
    balance, model = Counter(), case.plan.model
    for link in run.links:
        bare = COORDINATOR in (link.source, link.target)
        tokens = link.bytes_sent / (model.token_bytes if bare else model.link_bytes_per_token)
        balance[link.source] -= tokens
        balance[link.target] += tokens
    total = sum(r.request.input_tokens + r.request.output_tokens for r in run.records if r.outcome == "finished")
    for node in [*case.plan.placement, COORDINATOR]:
        assert balance[node] == pytest.approx(0, abs=1e-3)
    sent = sum(link.bytes_sent / model.token_bytes for link in run.links if link.source == COORDINATOR)
    assert sent == pytest.approx(total, abs=1e-3)


@settings(max_examples=60)
@given(cases(faults=False))
def test_each_node_computes_what_its_requests_bring(case):
    """Tokens of a node's steps = prompt and decode tokens of the requests routed over it (runtime's rules)."""
    run = simulate(case.plan, case.workload, policy=case.policy, seed=case.seed, duration_s=3000)
    prefill, decode = Counter(), Counter()
    for record in run.records:
        for stage in record.pipeline or ():
            prefill[stage.node] += record.request.input_tokens
            decode[stage.node] += record.request.output_tokens - 1
    for name, use in run.nodes.items():
        assert (use.prefill_tokens, use.decode_tokens) == (prefill[name], decode[name])
