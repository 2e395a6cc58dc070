"""Policies: shares follow the flow, routes are pipelines, what is counted is given back."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helix_kit.cluster import COORDINATOR, Cluster
from helix_kit.errors import InputError
from helix_kit.flow import Stage
from helix_kit.model import Model
from helix_kit.placement.plan import Plan
from helix_kit.placement.problem import Problem
from helix_kit.scheduling import ExpectedKV, PagedKV, Topology, make_policy
from helix_kit.scheduling.iwrr import Iwrr
from helix_kit.scheduling.policy import valid_links
from helix_kit.workload.request import Request


class Open:
    """A view of a cluster that has room for everything."""

    def __init__(self, dead=(), queues=None):
        self.dead, self.queues = set(dead), queues or {}

    def is_alive(self, node):
        return node not in self.dead

    def queue_length(self, node):
        return self.queues.get(node, 0)

    def now_s(self):
        return 0.0

    def has_room(self, node, tokens, num_layers):
        return True


@pytest.fixture(scope="module")
def plan():
    cluster = Cluster.model_validate(
        {"name": "c", "nodes": [{"gpu": "A100-40G", "count": 4}, {"gpu": "L4", "count": 6}, {"gpu": "T4", "count": 8}]}
    )
    problem = Problem.of(cluster, Model.preset("llama-30b"))
    spans = {f"A100-40G-{i}": (15 * i, 15 * i + 15) for i in range(4)}
    spans |= {f"L4-{i}": (10 * i, 10 * i + 10) for i in range(6)}
    spans |= {
        f"T4-{i}": s
        for i, s in enumerate([(0, 8), (8, 16), (16, 24), (24, 31), (30, 37), (37, 45), (45, 53), (53, 60)])
    }
    return Plan.from_placement(problem, spans, method="hand")


def requests(count, tokens=100):
    return [Request(i, 0.0, tokens, 10) for i in range(count)]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=8), st.integers(1, 400))
def test_iwrr_is_never_more_than_one_turn_from_its_share(weights, turns):
    wheel = Iwrr([float(w) for w in weights])
    counts = Counter(wheel.choose(1.0) for _ in range(turns))
    for index, weight in enumerate(weights):
        assert abs(counts[index] - turns * weight / sum(weights)) <= len(weights)


def test_helix_follows_the_flow(plan):
    """Node shares of many equal requests approach the plan's flow shares (independently of the loads' arithmetic)."""
    policy, count = make_policy("helix", plan), 4000
    used = Counter()
    for request in requests(count):
        used.update(stage.node for stage in policy.route(request, Open()))
    total = plan.flow_tokens_per_s
    kept = {n: plan.max_flow.through(n) / total for n in plan.placement}
    big = [n for n, share in kept.items() if share > 0.15]
    assert big
    for node in big:
        assert used[node] / count == pytest.approx(kept[node], rel=0.15)


@pytest.mark.parametrize("name", ["helix", "swarm", "random", "shortest_queue", "fixed"])
def test_every_route_is_a_pipeline_and_avoids_the_dead(plan, name):
    policy = make_policy(name, plan, seed=1)
    victim = max(plan.placement, key=plan.max_flow.through)
    for view in (Open(), Open(dead=[victim])):
        for request in requests(60):
            pipeline = policy.route(request, view)
            if pipeline is None:
                continue
            done = 0
            for stage in pipeline:
                start, end = plan.placement[stage.node]
                assert stage.start == done and start <= stage.start < stage.end == end
                assert view.is_alive(stage.node)
                done = stage.end
            assert done == plan.model.num_layers


def test_refusing_restores_the_loads(plan):
    policy = make_policy("helix", plan)
    before = policy.token_loads()[0].copy()
    request = requests(1)[0]
    pipeline = policy.route(request, Open())
    assert (policy.token_loads()[0] != before).any()
    policy.on_refused(request, pipeline)
    assert policy.token_loads()[0] == pytest.approx(before, abs=1e-12)


def test_a_route_that_fails_half_way_leaves_no_load(plan):
    policy = make_policy("helix", plan)

    class Full(Open):
        def has_room(self, node, tokens, num_layers):
            return plan.placement[node][0] == 0

    before = policy.token_loads()[0].copy()
    assert policy.route(requests(1)[0], Full()) is None
    assert policy.token_loads()[0] == pytest.approx(before, abs=1e-12)


def test_tokens_count_one_on_each_link_of_the_pipeline(plan):
    policy = make_policy("helix", plan)
    request = requests(1)[0]
    pipeline = policy.route(request, Open())
    loads, flow = policy.token_loads()
    before = loads.copy()
    policy.on_token(request)
    tokens = (loads - before) * flow
    assert tokens.sum() == pytest.approx(len(pipeline) + 1)
    assert set(np.round(tokens, 9)) <= {0.0, 1.0}


def test_shortest_queue_and_swarm_prefer_the_faster(plan):
    firsts = [n for n, (start, _) in plan.placement.items() if start == 0]
    crowded = Open(queues=dict.fromkeys(firsts[1:], 5))
    shortest = make_policy("shortest_queue", plan)
    assert {shortest.route(r, crowded)[0].node for r in requests(20)} == {firsts[0]}
    swarm = make_policy("swarm", plan)
    for name in firsts:
        for _ in range(20):
            swarm.on_hop_time(COORDINATOR, name, 0.01 if name == firsts[0] else 1.0)
    used = Counter(swarm.route(r, Open())[0].node for r in requests(100))
    assert used[firsts[0]] > 90


def test_random_is_repeatable(plan):
    routes = [[make_policy("random", plan, seed=7).route(r, Open()) for r in requests(1)] for _ in range(2)]
    assert routes[0] == routes[1]


def test_valid_links_are_those_the_flow_network_has(plan):
    graph_links = {e for e in plan.max_flow.capacities if e[0] != e[1]}
    assert set(valid_links(plan)) == graph_links


def test_unknown_policy_names_the_known(plan):
    with pytest.raises(InputError, match="did you mean helix"):
        make_policy("helx", plan)


def test_expected_kv_is_the_published_sum():
    """One node of 1000 layer-tokens: E = int(I + 240 r) in each layer, room while (1 - mark) stays free."""
    topology = Topology(4, {"a": (0, 4)}, {COORDINATOR: (("a", 1.0),), "a": ((COORDINATOR, 1.0),)}, {"a": 10000})
    budget = ExpectedKV(topology, high_water=0.9, output_ratio=0.6)
    request = Request(0, 0.0, 300, 5)
    assert budget.expected_tokens(request) == 444
    admitted = 0
    while budget.has_room("a", request):
        budget.reserve(Request(admitted, 0.0, 300, 5), (Stage("a", 0, 4),))
        admitted += 1
    assert admitted == 5  # 5 x 1776 = 8880 <= 9000 < 6 x 1776
    assert budget.bottleneck_use() == pytest.approx(0.888)
    for number in range(admitted):
        budget.release(Request(number, 0.0, 300, 5))
    assert budget.free["a"] == 10000


@given(st.lists(st.tuples(st.integers(1, 200), st.integers(1, 200), st.booleans()), max_size=40))
def test_pages_reserved_are_pages_of_live_requests(steps):
    kv = PagedKV({"a": 4000, "b": 3000})
    pipeline = (Stage("a", 0, 3), Stage("b", 3, 5))
    live = {}
    for number, (tokens_in, tokens_out, leave) in enumerate(steps):
        request = Request(number, 0.0, tokens_in, tokens_out)
        if kv.reserve(request, pipeline):
            live[number] = request
        if leave and live:
            kv.release(live.pop(next(iter(live))))
        pages = [-(-(r.input_tokens + r.output_tokens) // 16) for r in live.values()]
        assert kv.used("a") == 3 * sum(pages) <= 250
        assert kv.used("b") == 2 * sum(pages) <= 187
    for request in live.values():
        kv.release(request)
    assert kv.free == kv.capacity
