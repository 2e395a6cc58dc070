"""Pages never belong to two requests, and all of them come back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from helix_kit.runtime.worker.kv_cache import BlockTable, OutOfPagesError, PagePool, pages_for  # noqa: E402

operations = st.lists(st.tuples(st.integers(0, 4), st.integers(1, 40)), max_size=40)


@given(operations)
def test_pages_never_overlap_and_all_come_back(ops: list[tuple[int, int]]) -> None:
    pool = PagePool(60, 1, 2, torch.float32, torch.device("cpu"))
    tables: dict[int, BlockTable] = {}
    for request, tokens in ops:
        table = tables.setdefault(request, BlockTable(1 + request % 3))
        if tokens > 30:
            table.release(pool)
            continue
        before = table.num_tokens, table.pages.copy()
        try:
            table.grow(pool, tokens)
        except OutOfPagesError:
            table.num_tokens = before[0]
            assert np.array_equal(table.pages, before[1])
        held = [page for t in tables.values() for page in t.pages.ravel().tolist()]
        assert len(held) == len(set(held)) == pool.used
        assert all(0 <= page < pool.num_pages for page in held)
        for t in tables.values():
            slots = t.slots(0, t.num_tokens)
            assert slots.shape == (len(t.pages), t.num_tokens)
            assert len(np.unique(slots)) == slots.size
    for table in tables.values():
        table.release(pool)
    assert pool.used == 0


def test_pages_are_counted_by_layer() -> None:
    assert [pages_for(tokens, 3) for tokens in (0, 1, 16, 17, 32, 33)] == [0, 3, 3, 6, 6, 9]


def test_used_pages_are_zero_when_they_are_taken_again() -> None:
    pool = PagePool(2, 1, 2, torch.float32, torch.device("cpu"))
    pages = pool.take(2)
    pool.keys[pages], pool.values[pages] = float("nan"), float("nan")
    pool.give_back(pages)
    with pytest.raises(OutOfPagesError, match="3 pages needed, 2 of 2 free"):
        pool.take(3)
    again = pool.take(2)
    assert sorted(again) == sorted(pages)
    assert not pool.keys[again].any() and not pool.values[again].any()


def test_a_table_returns_pages_that_no_later_token_sees() -> None:
    """Windows of 20 and 40 tokens beside a layer without one; blocks 1 and 2 are kept for others."""
    pool = PagePool(100, 1, 2, torch.float32, torch.device("cpu"))
    table = BlockTable(3, (0, 20, 40), keep=(1, 3))
    for length in range(1, 150):
        table.grow(pool, 1)
        table.trim(pool)
        blocks = -(-length // 16)
        for layer, window in enumerate((length + 1, 20, 40)):
            # The next token, at `length`, sees the tokens from length - window + 1 on.
            stays = [b for b in range(blocks) if 16 * b + 15 > length - window or b in (1, 2)]
            assert np.flatnonzero(table.pages[layer] != pool.padding_page).tolist() == (
                list(range(blocks)) if layer == 0 else stays
            )
        assert pool.used == int((table.pages != pool.padding_page).sum())
    table.release(pool)
    assert (pool.used, pool.free) == (0, 100)
