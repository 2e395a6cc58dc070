"""KV cache reserved by requests: the published sum, and pages of live requests."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helix_kit.cluster import COORDINATOR
from helix_kit.flow import Stage
from helix_kit.scheduling import ExpectedKV, PagedKV, Topology
from helix_kit.workload.request import Request


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
