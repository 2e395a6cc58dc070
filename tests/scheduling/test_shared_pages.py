"""Pages with reference counts and eviction by age, against a plain bookkeeping of every block's users."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from helix_kit.flow import Stage
from helix_kit.scheduling.shared_kv import SharedKV
from helix_kit.scheduling.shared_pages import SharedPages

CAPACITY = 24
PROMPTS = [[0, 1, 2, 3], [0, 1, 4, 5], [0, 6, 7], [8, 9, 10, 11], [8, 9, 12]]
"""Numbers of the blocks of five prompts, which share their beginnings."""
SPANS = [(0, 2), (1, 2)]


@dataclass
class PlainBlock:
    """A block in the cache: who uses it, and since when nobody does."""

    layers: int
    users: set[int] = field(default_factory=set)
    idle_since: tuple[int, int] = (0, 0)


@dataclass
class Plain:
    """The same rules, one block at a time."""

    blocks: dict[tuple[int, tuple[int, int]], PlainBlock] = field(default_factory=dict)
    private: dict[int, int] = field(default_factory=dict)
    used_by: dict[int, list[tuple[int, tuple[int, int]]]] = field(default_factory=dict)
    spans: list[tuple[int, int]] = field(default_factory=list)
    now: int = 0

    def leading(self, prompt, span):
        found = []
        for number in prompt:
            keys = [(number, s) for s in self.spans if s[0] <= span[0] and (number, s) in self.blocks]
            if not keys:
                break
            found.append(keys[0])
        return found

    def free(self):
        busy = sum(b.layers for b in self.blocks.values() if b.users)
        return CAPACITY - busy - sum(self.private.values())

    def admit(self, request, tokens, span, prompt):
        pages, layers = -(-tokens // 16), span[1] - span[0]
        for found in (self.leading(prompt, span), []):
            woken = sum(self.blocks[k].layers for k in found if not self.blocks[k].users)
            if (pages - len(found)) * layers + woken <= self.free():
                break
        else:
            return None
        for key in found:
            self.blocks[key].users.add(request)
        self.used_by[request], self.private[request] = list(found), (pages - len(found)) * layers
        return len(found), self.evicted()

    def evicted(self):
        gone = []
        while sum(self.private.values()) + sum(b.layers for b in self.blocks.values()) > CAPACITY:
            key = min((k for k, b in self.blocks.items() if not b.users), key=lambda k: self.blocks[k].idle_since)
            del self.blocks[key]
            gone.append(key[0])
        return gone

    def compute(self, request, prompt, span):
        for number in prompt[len(self.used_by[request]) :]:
            if any((number, s) in self.blocks for s in self.spans if s[0] <= span[0]):
                continue
            if span not in self.spans:
                self.spans.append(span)
            self.blocks[number, span] = PlainBlock(span[1] - span[0], {request})
            self.used_by[request].append((number, span))
            self.private[request] -= span[1] - span[0]

    def end(self, request):
        self.now += 1
        # Of one request the last block goes first; blocks of wider spans that it uses are counted for themselves.
        for place, key in enumerate(reversed(self.used_by.pop(request))):
            block = self.blocks[key]
            block.users.discard(request)
            if not block.users:
                block.idle_since = (self.now, self.spans.index(key[1]), place)
        del self.private[request]


actions = st.lists(
    st.tuples(
        st.integers(0, 5),
        st.sampled_from(range(len(PROMPTS))),
        st.integers(0, 40),
        st.sampled_from(SPANS),
        st.booleans(),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(actions)
def test_no_page_is_lost_and_hits_are_those_of_a_plain_cache(steps):
    """Each step starts a request in a place, or ends the one that is there; all end at last."""
    kv, plain, running = SharedKV(), Plain(), {}
    kv.add_worker("a", CAPACITY)
    pages = kv.workers["a"]

    def agree():
        assert pages.free == plain.free() and pages.used == CAPACITY - pages.free
        assert 0 <= pages.idle <= pages.held and pages.private + pages.held <= CAPACITY
        assert sorted(pages.held_blocks()) == sorted(number for number, _ in plain.blocks)

    for number, (place, which, answer, span, computes) in enumerate(steps):
        if place in running:
            kv.leave((running[place], 0))
            kv.release("a", (running[place], 0))
            plain.end(running.pop(place))
            agree()
            continue
        prompt, tokens = PROMPTS[which], 16 * len(PROMPTS[which]) + answer
        kv.look_up(np.array(prompt))
        admitted = kv.admit((number, 0), tokens, (Stage("a", *span),))
        expected = plain.admit(number, tokens, span, prompt)
        assert (admitted is None) == (expected is None)
        if admitted is not None:
            assert (admitted.hit_blocks, len(admitted.evicted.get("a", ()))) == (expected[0], len(expected[1]))
            assert pages.take_evicted().tolist() == expected[1]
            running[place] = number
            if computes:
                kv.add_computed((number, 0), np.array(prompt))
                plain.compute(number, prompt, span)
        agree()
    for number in running.values():
        kv.release_all((number, 0))
        plain.end(number)
    agree()
    assert pages.free == CAPACITY and pages.private == 0 and pages.held == pages.idle


def test_a_block_of_more_layers_serves_a_request_that_enters_in_the_middle():
    pages = SharedPages(100)
    wide = pages.promise(32, 0, 4)
    pages.add_blocks(wide, np.array([5, 6]), (1, 0))
    assert pages.find(np.array([5, 6, 7]), 2, 4).tolist() == [0, 0]
    assert pages.find(np.array([5, 6]), 0, 5).tolist() == []
    inner = pages.promise(48, 2, 4, np.array([5, 6]))
    assert (inner.private, inner.shared.tolist()) == (2, [[1, 0, 0], [1, 0, 1]])
    assert pages.used == 8 + 2


def test_the_queue_of_idle_blocks_does_not_grow_with_use(monkeypatch):
    monkeypatch.setattr("helix_kit.scheduling.shared_pages.MIN_QUEUE", 8)
    pages = SharedPages(100)
    pages.add_blocks(first := pages.promise(64, 0, 1), np.arange(4), (0, 0))
    pages.leave(first)
    for _ in range(50):
        pages.leave(pages.promise(64, 0, 1, np.arange(4)))
    assert pages._queued <= 12 and pages.idle == 4
