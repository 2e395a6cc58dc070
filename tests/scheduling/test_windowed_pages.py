"""Pages of a worker with windows, counted by hand; `test_kept_blocks` holds them against what workers do."""

from __future__ import annotations

import numpy as np
import pytest

from helix_kit.flow import Stage
from helix_kit.scheduling.shared_kv import SharedKV
from helix_kit.scheduling.windowed_blocks import ALL, WITH_WINDOW
from helix_kit.scheduling.windowed_pages import WindowedPages

PROMPT = np.arange(10)
"""Numbers of ten blocks: a prompt of 160 tokens."""


def pages_of(capacity: int, windows: tuple[int, ...] = (0, 32)) -> WindowedPages:
    return WindowedPages(capacity, 0, windows, chunk_tokens=16)


def test_a_request_needs_its_context_in_one_layer_and_a_window_in_the_other() -> None:
    """A step of 16 rows sees 31 tokens before them: 47 tokens touch four pages at most; 32 tokens touch three."""
    pages = pages_of(1000)
    hold = pages.promise(320, 0, 2)
    assert hold.private == 20 + 4
    assert pages.promise(32, 0, 2).private == 2 + 2  # no more than it has
    assert pages.promise(320, 0, 1).private == 20 and pages.promise(320, 1, 2).private == 4
    pages.add_blocks(hold, PROMPT[:0], (1, 0))
    assert hold.private == 20 + 3
    assert pages.extend(hold, 336) and hold.private == 21 + 3


def test_what_fits_when_empty() -> None:
    pages = pages_of(24)
    assert pages.has_room(320, 0, 2) and pages.holds_when_empty(320, 0, 2)
    assert not pages.has_room(336, 0, 2) and not pages.holds_when_empty(336, 0, 2)
    hold = pages.promise(320, 0, 2)
    assert pages.free == 0 and not pages.has_room(1, 0, 1) and pages.holds_when_empty(320, 0, 2)
    assert not pages.extend(hold, 336) and hold.private == 24


@pytest.mark.parametrize(("capacity", "kept"), [(100, (0, 10)), (18, (8, 10)), (15, (0, 0))])
def test_a_prompt_keeps_what_there_is_room_for(capacity: int, kept: tuple[int, int]) -> None:
    """176 tokens: 11 pages, and at most 4 of the window: with two kept blocks 6, with ten of them all 11."""
    pages = pages_of(capacity)
    hold = pages.promise(176, 0, 2, PROMPT[:0], keepable=10)
    assert hold.keep == kept


def test_parts_of_windows_become_idle_and_go_first() -> None:
    pages = pages_of(24)
    hold = pages.promise(176, 0, 2, PROMPT[:0], keepable=10)
    assert pages.add_blocks(hold, PROMPT, (1, 0)).tolist() == PROMPT.tolist()
    assert (pages.held, pages.private) == (20, 1 + 1)
    # The token at 160 sees those from 129 on, in blocks 8 and 9: the others' parts of the window are idle.
    assert (pages.idle, pages.used) == (8, 14)
    # Another request begins after all ten blocks: it takes up nothing idle.
    assert len(pages.find(PROMPT, 0, 2)) == 10
    pages.advance(hold, 176)
    assert pages.idle == 9
    other = pages.promise(112, 0, 2)  # 7 + 4 pages, where 2 + 9 are free or idle
    gone = pages.evict()
    assert gone[:, :3].tolist() == [[1, 0, place] for place in range(9)] and set(gone[:, 3]) == {WITH_WINDOW}
    assert len(pages.take_evicted()) == 0
    # Blocks 8 and 9 were needed to begin after ten of them; only the part of block 9 is left.
    assert len(pages.find(PROMPT, 0, 2)) == 0 and len(pages.find(PROMPT, 0, 1)) == 10
    for one in (other, hold):
        pages.leave(one)
        pages.release(one)
    assert hold.own.tolist() == PROMPT.tolist() and hold.without_window.tolist() == list(range(9))
    assert pages.evict(all_idle=True)[:, 3].tolist().count(ALL) == 10
    assert (pages.free, pages.held, pages.idle) == (24, 0, 0) and pages.take_evicted().tolist() == PROMPT[::-1].tolist()


def test_a_block_without_its_part_is_replaced() -> None:
    pages = pages_of(60)
    holds = []
    for request in (1, 2):
        holds.append(pages.promise(176, 0, 2, pages_found(pages), keepable=10, wanted=PROMPT))
        pages.add_blocks(holds[-1], PROMPT, (request, 0))
        assert len(holds[-1].shared) == 0 and len(pages.find(PROMPT, 0, 2)) == 10
        if request == 1:  # while it runs, the second parts of its first blocks go
            pages.advance(holds[0], 200)
            large = pages.promise(16 * pages.free, 0, 1)
            assert set(pages.evict()[:, 3]) == {WITH_WINDOW}
            pages.release(large)
            assert len(pages.find(PROMPT, 0, 2)) == 0
    assert pages.held == 10 + 20 and sorted(pages.held_blocks()) == sorted([*PROMPT, *PROMPT])
    for hold in holds:
        pages.leave(hold)
        pages.release(hold)
    assert len(pages.evict(all_idle=True)) >= 20 and pages.free == 60 and len(pages.held_blocks()) == 0


def pages_found(pages: WindowedPages) -> np.ndarray:
    return PROMPT[: len(pages.find(PROMPT, 0, 2))]


def test_where_requests_part_the_last_window_is_kept() -> None:
    """Others have computed the first four blocks of a prompt of ten, whose second parts have gone."""
    pages = pages_of(1000)
    first = pages.promise(80, 0, 2, keepable=4)
    pages.add_blocks(first, PROMPT[:4], (1, 0))
    pages.advance(first, 200)
    filler = pages.promise(16 * pages.free, 0, 1)
    assert len(pages.evict()) == 4
    pages.release(filler)
    pages.capacity -= pages.free - 17  # too few to keep all ten
    hold = pages.promise(176, 0, 2, PROMPT[:0], keepable=10, wanted=PROMPT[:4])
    assert hold.keep == (2, 4)
    pages.add_blocks(hold, PROMPT, (2, 0))
    assert len(pages.find(PROMPT, 0, 2)) == 4
    # While it runs these parts stay, because others begin there; so do those of a request that began there.
    pages.advance(hold, 1000)
    assert len(pages.evict(all_idle=True)) == 0 and len(pages.find(PROMPT, 0, 2)) == 4
    pages.capacity += 1000
    other = pages.promise(176, 0, 2, PROMPT[:4], keepable=10, wanted=PROMPT)
    assert other.hits == 4
    pages.leave(hold)
    pages.advance(other, 1000)
    pages.evict(all_idle=True)
    assert len(pages.find(PROMPT, 0, 2)) == 4
    pages.leave(other)
    pages.leave(first)
    pages.evict(all_idle=True)
    assert len(pages.find(PROMPT, 0, 2)) == 0


def test_the_hit_is_that_of_the_stage_that_can_begin_last() -> None:
    """Stage b holds fewer blocks, and stage a cannot begin after so few of them, since their windows have gone."""
    kv, way = SharedKV(), (Stage("a", 0, 2), Stage("b", 2, 4))
    kv.add_worker("a", 100, pages_of(100))
    kv.add_worker("b", 100, WindowedPages(100, 2, (0, 32), chunk_tokens=16))
    kv.look_up(PROMPT[:0], keepable=10)
    assert kv.admit((1, 0), 176, way) is not None
    kv.add_computed((1, 0), PROMPT)
    kv.leave((1, 0))
    kv.release_all((1, 0))
    kv.look_up(PROMPT)
    assert kv.wanted_hits(way) == 10
    a, b = kv.workers["a"], kv.workers["b"]
    b._evict(b._spans[2, 4].blocks[9], ALL)
    kv.look_up(PROMPT)
    assert kv.wanted_hits(way) == 9
    a._evict(a._spans[0, 2].blocks[7], WITH_WINDOW)  # block 7 is seen by a request that begins after nine blocks
    kv.look_up(PROMPT)
    assert kv.wanted_hits(way) == 7


def test_a_request_that_a_later_worker_has_no_pages_for_is_as_before() -> None:
    """Also when its blocks become known then: the first worker, which had room, counts no pages for more tokens."""
    kv, way = SharedKV(), (Stage("a", 0, 2), Stage("b", 2, 4))
    kv.add_worker("a", 100, WindowedPages(100, 0, (0, 32), chunk_tokens=16))
    kv.add_worker("b", 8)
    assert kv.admit((1, 0), 64, way) is not None
    before = {worker: kv.used(worker) for worker in "ab"}
    assert kv.extend((1, 0), 400, way) is None
    assert {worker: kv.used(worker) for worker in "ab"} == before
    kv.add_computed((1, 0), np.array([1, 2]))
    alone = SharedKV()
    alone.add_worker("a", 100, WindowedPages(100, 0, (0, 32), chunk_tokens=16))
    alone.admit((1, 0), 64, way[:1])
    alone.add_computed((1, 0), np.array([1, 2]))
    assert kv.used("a") == alone.used("a")
