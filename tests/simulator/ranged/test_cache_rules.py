"""The compiled rules of prefix caches against the coordinator's own bookkeeping, block by block."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from helix_kit.flow import Stage
from helix_kit.scheduling.shared_kv import SharedKV
from helix_kit.simulator.ranged.cached_kv import CachedKV, Contents
from helix_kit.workload import Workload

SPANS = {"a": (0, 4), "b": (2, 6), "c": (4, 6), "d": (0, 6), "e": (0, 2)}
PIPELINES = [
    (Stage("a", 0, 4), Stage("b", 4, 6)),
    (Stage("a", 0, 4), Stage("c", 4, 6)),
    (Stage("e", 0, 2), Stage("a", 2, 4), Stage("b", 4, 6)),
    (Stage("e", 0, 2), Stage("b", 2, 6)),
    (Stage("d", 0, 6),),
]
"""Requests enter `a` and `b` at different layers, so that their caches have two spans."""

contents = st.tuples(st.integers(1, 4), st.sampled_from([2, 30, 150, 290]))
requests = st.tuples(
    st.lists(contents, min_size=1, max_size=3), st.integers(1, 60), st.sampled_from([None, 3, 9]), st.booleans()
)
actions = st.lists(
    st.tuples(st.sampled_from(["start", "start", "compute", "leave", "lose"]), st.integers(0, 11), st.integers(0, 600)),
    max_size=50,
)


def numbers_of(workload, size):
    """Numbers of each request's blocks: equal for equal text from the start on. Text that is not named is its own."""
    table, rows = {}, []
    for at, request in enumerate(workload):
        text = [(content, i) for content, tokens in request.prefix for i in range(tokens)]
        if request.answer is not None and len(text) == request.input_tokens:
            text += [(request.answer, i) for i in range(request.output_tokens)]
        whole = request.input_tokens + request.output_tokens
        text += [("own", at, i) for i in range(whole - len(text))]
        row, previous = [], None
        for first in range(0, whole - whole % size, size):
            previous = table.setdefault((previous, tuple(text[first : first + size])), len(table))
            row.append(previous)
        rows.append(np.array(row, dtype=np.int64))
    return rows


@settings(max_examples=150, deadline=None)
@given(
    st.lists(requests, min_size=1, max_size=12), actions, st.sampled_from([1, 2, 7]), st.sampled_from([350, 900, 9000])
)
def test_compiled_caches_are_those_of_the_coordinator(rows, steps, size, tokens):
    """Each step starts a request, again where it has been before, computes some of it, ends it, or loses a node."""
    workload = Workload.of(
        (0.0, sum(n for _, n in segments) + (5 if more else 0), out, None, None, tuple(segments), answer)
        for segments, out, answer, more in rows
    )
    numbers = numbers_of(workload, size)
    capacity = {node: (end - start) * tokens for node, (start, end) in SPANS.items()}
    kv = CachedKV(capacity, {node: end for node, (_, end) in SPANS.items()}, Contents(workload, size))
    plain = SharedKV(page_tokens=size)
    for node, pages in kv.capacity.items():
        plain.add_worker(node, pages)
    running: set[int] = set()
    for action, which, amount in steps:
        at = which % len(rows)
        request = workload[at]
        context = request.input_tokens + request.output_tokens
        if action == "lose":
            node = "abcde"[amount % 5]
            plain.drop_worker(node)
            plain.add_worker(node, kv.capacity[node])
            kv.lose(node)
        elif action == "compute" and at in running:
            computed = min(amount, context - 1)
            plain.add_computed((at, 0), numbers[at][: computed // size])
            kv.add_computed(at, computed)
        elif action == "leave" and at in running:
            plain.release_all((at, 0))
            kv.release(at)
            running.discard(at)
        elif action == "start" and at not in running:
            plain.look_up(numbers[at][: (request.input_tokens - 1) // size])
            kv.look_up(at, request.input_tokens)
            for node, (start, end) in SPANS.items():
                for entry in range(start, end):
                    assert kv.has_room(node, context, end - entry) == plain.has_room(node, context, entry, end)
            expected = [plain.wanted_hits(pipeline) * size for pipeline in PIPELINES]
            assert [kv.cached_tokens(pipeline) for pipeline in PIPELINES] == expected
            pipeline = PIPELINES[amount % len(PIPELINES)]
            admitted = plain.admit((at, 0), context, pipeline)
            hits = kv.reserve(at, context, pipeline)
            assert hits == (None if admitted is None else admitted.hit_blocks * size)
            if admitted is not None:
                running.add(at)
        assert kv.free == {node: plain.free(node) for node in kv.capacity}
        assert all(kv.used(node) == plain.used(node) for node in kv.capacity)
    for at in running:
        kv.release(at)
    assert kv.free == kv.capacity
