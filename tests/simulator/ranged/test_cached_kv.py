"""Prefix caches in range execution: hits against a plain LRU, and every prompt token computed or found."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import make_plan

from helix_kit.flow import Stage
from helix_kit.simulator import BatchingOptions, NodeDies, SimulationOptions, make_engine, simulate
from helix_kit.simulator.ranged.cached_kv import CachedKV, Contents
from helix_kit.workload import Workload

ALONE = make_plan(((0, 8),), ("L4",), True)
LANES = make_plan(((0, 5), (3, 8), (0, 3), (5, 8)), ("L4", "L4", "T4", "T4"), True)
OFF = BatchingOptions(prefix_cache=False)


def workload_of(rows) -> Workload:
    """Rows (arrival, segments, output tokens, answer's id or None)."""
    return Workload.of(
        (at, sum(n for _, n in segments), out, None, None, tuple(segments), answer)
        for at, segments, out, answer in rows
    )


@st.composite
def sequences(draw, gaps=(60.0,)):
    """Requests whose prompts are made of a few contents, so that many begin alike."""
    rows, now = [], 0.0
    for number in range(draw(st.integers(1, 25))):
        contents = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
        segments = [(content, 40 * content) for content in contents]
        rows.append((now, segments, draw(st.integers(1, 40)), draw(st.sampled_from([None, 9, 100 + number]))))
        now += draw(st.sampled_from(gaps))
    return workload_of(rows)


def plain_lru(workload: Workload, capacity_blocks: int) -> list[int]:
    """Hit tokens of each request where one request runs at a time: blocks are their whole content so far, as text."""
    cache: OrderedDict[tuple, None] = OrderedDict()
    hits = []
    for request in workload:
        text = [(content, i) for content, tokens in request.prefix for i in range(tokens)]
        usable = (len(text) - 1) // 16
        found = 0
        while found < usable and tuple(text[: 16 * (found + 1)]) in cache:
            found += 1
        hits.append(16 * found)
        answer = ("answer", request.id) if request.answer is None else request.answer
        text += [(answer, i) for i in range(request.output_tokens)]
        used = [tuple(text[: 16 * (i + 1)]) for i in range((len(text) - 1) // 16)]
        for block in used[:found]:
            cache.pop(block)
        while len(cache) + -(-len(text) // 16) > capacity_blocks:  # its pages are promised when it starts
            cache.popitem(last=False)
        for block in reversed(used):  # its last block is the first to go
            cache.pop(block, None)
            cache[block] = None
    return hits


@settings(max_examples=25, deadline=None)
@given(sequences(), st.sampled_from([25, 60, 1000]))
def test_hits_are_those_of_a_plain_lru(workload, blocks):
    node = next(iter(ALONE.placement))
    run = simulate(ALONE, workload, kv_capacity={node: blocks * 8 * 16})
    assert run.summary()["finished"] + run.summary()["rejected"] == len(workload)
    served = [r for r in run.records if r.outcome == "finished"]
    kept = Workload(tuple(r for r in workload if run.records[r.id].outcome == "finished"))
    assert [r.cached_tokens for r in served] == plain_lru(kept, blocks)


@settings(max_examples=25, deadline=None)
@given(
    sequences(gaps=(0.0, 0.05, 2.0)),
    st.sampled_from(["helix", "random", "shortest_queue"]),
    st.sampled_from([60, 1000]),
)
def test_each_prompt_token_is_computed_or_found_and_no_page_is_lost(workload, policy, blocks):
    """On every layer: nodes count the tokens of each request once, so requests through two nodes count twice."""
    capacity = {node: blocks * (end - start) * 16 for node, (start, end) in LANES.placement.items()}
    options = SimulationOptions(
        policy=policy, warmup_s=0.0, duration_s=600.0, kv_capacity=capacity, seed=1, execution="range"
    )
    engine = make_engine(LANES, workload, options)

    def count(now_s: float) -> None:
        kv = engine.kv
        assert all(0 <= kv.used(n) <= kv.capacity[n] and kv.free[n] == kv.capacity[n] - kv.used(n) for n in kv.capacity)

    engine.run(600.0, count, 5.0)
    assert not engine.live and engine.kv.free == engine.kv.capacity
    asked = found = 0
    for at in engine.log.finished_s:
        stages = len(engine.pipelines[at])
        asked += workload[at].input_tokens * stages
        found += engine.log.cached_tokens.get(at, 0) * stages
    assert int(engine.setup.nodes["prefill_tokens"].sum()) + found == asked


def test_a_full_prompt_computes_its_last_block_again():
    twice = workload_of([(0.0, [(1, 64)], 4, None), (60.0, [(1, 64)], 4, None), (120.0, [(1, 65)], 4, None)])
    assert [r.cached_tokens for r in simulate(ALONE, twice).records] == [0, 48, 64]


def test_without_the_cache_a_run_is_that_of_requests_without_contents():
    workload = Workload.conversations(0.5, 60.0, seed=3)
    bare = Workload.of((r.arrival_s, r.input_tokens, r.output_tokens) for r in workload)
    off, plain, on = simulate(LANES, workload, options=OFF), simulate(LANES, bare), simulate(LANES, workload)
    assert [(r.started_s, r.first_token_s, r.finished_s) for r in off.records] == [
        (r.started_s, r.first_token_s, r.finished_s) for r in plain.records
    ]
    assert off.summary()["prefix_hit_rate"] == 0 < on.summary()["prefix_hit_rate"]


@pytest.mark.parametrize("lost", list(LANES.placement))
def test_what_a_lost_node_held_is_computed_again(lost):
    workload = Workload.conversations(1.0, 30.0, think_s=5.0, seed=4)
    run = simulate(LANES, workload, faults=[NodeDies(lost, at_s=15.0, detection_s=1.0)])
    assert run.summary()["finished"] == len(workload) and run.summary()["prefix_hit_rate"] > 0


def test_numbers_of_blocks_are_equal_where_the_content_is():
    contents = Contents(workload_of([(0.0, [(1, 32), (2, 8)], 40, None), (0.0, [(1, 40)], 9, None)]), 16)
    first, second = contents.records
    assert contents.numbers.tolist() == [0, 1, 0, 1] and contents.count == 6 and contents.are_shared
    assert [first["own"] + place for place in (2, 3, 4)] == [2, 3, 4] and second["own"] + 2 == 5


def test_contents_that_no_two_requests_share_are_not_looked_up():
    workload = Workload.conversations(1.0, 30.0, turns=1, system_tokens=0, seed=5)
    assert all(request.prefix for request in workload)
    options = SimulationOptions(policy="helix")
    assert Contents.worth_caching(workload, options) is None
    assert Contents.worth_caching(workload, replace(options, faults=[NodeDies("L4-0", at_s=5.0)])) is not None
    assert Contents.worth_caching(Workload.conversations(1.0, 30.0, seed=5), options) is not None
    assert Contents.worth_caching(workload, replace(options, batching=OFF)) is None


def test_memory_is_that_of_the_blocks_that_are_held():
    """Each of 400 requests leaves 64 blocks in a cache for 640; the cells of those that went are used again."""
    workload = workload_of([(0.0, [(1 + n, 1000)], 24, None) for n in range(400)])
    stage = Stage("a", 0, 2)
    kv = CachedKV({"a": 640 * 2 * 16}, {"a": 2}, Contents(workload, 16))
    for at in range(400):
        kv.look_up(at, 1000)
        assert kv.reserve(at, 1024, (stage,)) == 0
        kv.add_computed(at, 1023)
        kv.release(at)
    assert len(kv.state.cells) <= 16 and kv.free == kv.capacity
    kv.look_up(395, 1000)
    assert kv.cached_tokens((stage,)) == 62 * 16
    kv.lose("a")
    assert kv.state.pools["free_leaves"] == len(kv.state.cells) - 1 and not kv.state.cells.any()
