"""Blocks that requests share on a worker: no page is lost or given out twice, whatever is kept and evicted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from helix_kit.runtime.transport.messages import BlockRun, RouteStage  # noqa: E402
from helix_kit.runtime.worker.kept_blocks import KeptBlocks  # noqa: E402
from helix_kit.runtime.worker.kv_cache import PagePool  # noqa: E402

PAGES = 60
steps = st.lists(
    st.tuples(
        st.sampled_from(["start", "start", "end", "evict"]), st.integers(0, 30), st.integers(1, 3), st.integers(0, 80)
    ),
    max_size=60,
)


@settings(max_examples=100, deadline=None)
@given(steps)
def test_pages_are_those_that_attempts_use_or_keep(actions: list[tuple[str, int, int, int]]) -> None:
    """A plain set of pages for each attempt, and for each ended one the pages of its kept blocks."""
    pool = PagePool(PAGES, 1, 2, torch.float32, torch.device("cpu"))
    blocks = KeptBlocks(pool)
    running: dict[int, tuple[int, object, int]] = {}  # request -> (first layer, table, blocks shared)
    kept: dict[tuple[int, int], set[int]] = {}  # (request, place) -> pages
    for number, (what, which, count, tokens) in enumerate(actions):
        if what == "start":
            start, shared = which % 2, []
            donors = [r for r, (first, table, _) in running.items() if first <= start and table.pages.shape[1] >= count]
            if donors and tokens % 2:
                shared = [BlockRun(donors[which % len(donors)], 0, 0, count)]
            if pool.free < 3 * (tokens // 16 + 1):
                continue
            table = blocks.new_table(number, 0, RouteStage("w", start, 3, "tcp://w", shared))
            assert table is not None and table.num_tokens == 16 * sum(run.count for run in shared)
            table.grow(pool, tokens + 1)
            running[number] = (start, table, sum(run.count for run in shared))
        elif what == "end" and running:
            request = list(running)[which % len(running)]
            _, table, shared_blocks = running.pop(request)
            full = min(shared_blocks + count, table.num_tokens // 16)
            places = range(shared_blocks, full) if tokens % 3 else range(0)
            kept |= {(request, place): set(table.pages[:, place].tolist()) for place in places}
            blocks.end(request, 0, [BlockRun(request, 0, place, 1) for place in places])
        elif what == "evict" and kept:
            key = list(kept)[which % len(kept)]
            in_use = {page for _, table, _ in running.values() for page in table.pages.ravel().tolist()}
            if not kept[key] & in_use:  # the coordinator evicts only what no request uses
                del kept[key]
                blocks.evict(BlockRun(key[0], 0, key[1], 1))
        in_use = {page for _, table, _ in running.values() for page in table.pages.ravel().tolist()}
        idle = set().union(*kept.values()) - in_use
        assert (pool.used, pool.idle, pool.free) == (len(in_use), len(idle), PAGES - len(in_use) - len(idle))
        free = set(pool.take(pool.free))
        assert not free & (in_use | idle)
        pool.give_back(np.array(sorted(free), dtype=np.int64))
    for request in list(running):
        blocks.end(request, 0, [])
    for request, place in kept:
        blocks.evict(BlockRun(request, 0, place, 1))
    assert pool.free == PAGES and not blocks._attempts
