"""The fewest nodes that a request passes, against all ways."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

import helix_kit as hk
from helix_kit.flow import can_follow, longest_path
from helix_kit.placement import Problem
from helix_kit.placement.groups import groups_of
from helix_kit.placement.method import Task
from helix_kit.placement.pattern.depth import fewest_steps, flow_within
from helix_kit.placement.watch import Watch

LAYERS = 7


def all_ways(pins, sizes, partial_inference, at=0, used=0):
    """Number of nodes on every way from layer `at`; a pinned node is met once, since ends only grow."""
    if at == LAYERS:
        yield 0
        return
    for start, end in pins.values():
        if can_follow(at, (start, end), partial_inference):
            yield from (1 + n for n in all_ways(pins, sizes, partial_inference, end, used))
    if used < len(sizes):
        for k in range(1, min(sizes[used], LAYERS - at) + 1):
            yield from (1 + n for n in all_ways(pins, sizes, partial_inference, at + k, used + 1))


@st.composite
def pinned(draw):
    pins = {}
    for name in "ab"[: draw(st.integers(0, 2))]:
        start = draw(st.integers(0, LAYERS - 1))
        pins[name] = (start, draw(st.integers(start + 1, LAYERS)))
    return pins


@given(pinned(), st.lists(st.integers(1, 4), max_size=4), st.booleans())
def test_no_way_passes_fewer_nodes(pins, sizes, partial_inference):
    steps = fewest_steps(LAYERS, pins, sizes, partial_inference)
    ways = list(all_ways(pins, sizes, partial_inference))
    if steps is None:
        assert not ways
        return
    assert len(steps) == min(ways)
    assert steps[0].start == 0 and steps[-1].end == LAYERS
    assert all(a.end == b.start for a, b in itertools.pairwise(steps))


@pytest.mark.parametrize(("cap", "rate"), [(3, 2), (2, 1), (1, 0)])
def test_flows_within_a_cap_leave_out_longer_paths(cap, rate):
    """Two ways through six layers, one of two nodes and one of three."""
    cluster = hk.Cluster.model_validate({"name": "five", "nodes": [{"gpu": "A100-40G", "count": 5}]})
    problem = Problem.of(cluster, hk.Model.preset("llama2-70b").model_copy(update={"num_layers": 6}))
    a, b, c, d, e = (n.name for n in cluster.nodes)
    placement = {a: (0, 3), b: (3, 6), c: (0, 2), d: (2, 4), e: (4, 6)}
    task = Task(problem, Watch(10), groups_of(problem))
    flow, links = flow_within(task, placement, cap, "any")
    if rate == 0:
        assert (flow, links) == (None, None)
        return
    assert longest_path(flow, placement) <= cap
    assert (links is None) == (cap == 3)
    short = problem.max_flow({a: (0, 3), b: (3, 6)}).tokens_per_s
    if cap == 2:
        # c may still go on to b, whose range it enters at no layer: only a's way is short enough.
        assert flow.tokens_per_s == pytest.approx(short)
    else:
        assert flow.tokens_per_s > 1.5 * short
