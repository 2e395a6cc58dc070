"""Attention over pages is that over gathered keys and values, and exponentials are those of exact numbers."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from helix_kit.runtime.worker import cpu_attention  # noqa: E402
from helix_kit.runtime.worker.attention import AttentionSettings, attend_rows, lay_out  # noqa: E402
from helix_kit.runtime.worker.cpu_attention import attend_decodes  # noqa: E402
from helix_kit.runtime.worker.kv_cache import BlockTable, PagedRows, PagePool  # noqa: E402

KV_HEADS, DIM, LAYERS = 2, 16, 2


def step_of(lengths: list[int]):
    """A pool full of numbers, and a step in which requests of these lengths decode, in a worker of two layers."""
    pool = PagePool(64, KV_HEADS, DIM, torch.float32, torch.device("cpu"))
    generator = torch.Generator().manual_seed(sum(lengths))
    for store in (pool.keys, pool.values):
        store.normal_(generator=generator)
    requests = []
    for length in lengths:
        table = BlockTable(LAYERS)
        table.grow(pool, length)
        requests.append(PagedRows(table, 0, length - 1, 1))
    return pool, lay_out(pool, 0, LAYERS, requests), generator


@given(
    lengths=st.lists(st.integers(1, 70), min_size=1, max_size=4), heads=st.sampled_from([2, 4, 6]),
    window=st.sampled_from([None, 1, 17, 100]), scaling=st.sampled_from([None, 0.5]), layer=st.integers(0, LAYERS - 1),
)  # fmt: skip
def test_it_is_that_over_gathered_pages(
    lengths: list[int], heads: int, window: int | None, scaling: float | None, layer: int
) -> None:
    pool, layout, generator = step_of(lengths)
    query = torch.randn(len(lengths), heads, DIM, generator=generator)
    nothing = torch.empty(1, 0, 0, 0)
    asked = AttentionSettings(scaling, window)
    expected = attend_rows(layout, layer, query.transpose(0, 1)[None], (nothing, nothing), asked)
    found = attend_decodes(pool, layout.decodes[0], layer, query, scaling, window)
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_share_the_requests(threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        test_it_is_that_over_gathered_pages()
    finally:
        torch.set_num_threads(before)


def test_one_long_request_is_left_to_torch_where_there_are_threads() -> None:
    _, short, _ = step_of([20])
    _, several, _ = step_of([20, 30, 10])
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert cpu_attention.suits(short.decodes[0], heads=1 << 12)
        torch.set_num_threads(3)
        assert not cpu_attention.suits(short.decodes[0], heads=1 << 12)
        assert cpu_attention.suits(short.decodes[0], heads=4)
        assert cpu_attention.suits(several.decodes[0], heads=1 << 12)
    finally:
        torch.set_num_threads(before)


def test_scores_far_apart_leave_the_highest() -> None:
    pool, layout, _ = step_of([20])
    pool.keys.zero_()
    pool.keys[layout.decodes[0].pages[0, 0, 0], 3] = 100.0
    found = attend_decodes(pool, layout.decodes[0], 0, torch.full((1, KV_HEADS, DIM), 10.0), None, None)
    assert torch.equal(found[0], pool.values[layout.decodes[0].pages[0, 0, 0], 3])


def test_what_is_not_a_number_stays_in_its_request() -> None:
    pool, layout, generator = step_of([20, 20])
    query = torch.randn(2, 4, DIM, generator=generator)
    query[1, 2, 3] = float("nan")
    found = attend_decodes(pool, layout.decodes[0], 0, query, None, None)
    assert found[0].isfinite().all() and found[1, 2].isnan().all() and found[1, [0, 1, 3]].isfinite().all()


def test_exponentials_are_exact_to_two_units_of_the_last_place() -> None:
    values = -np.geomspace(1e-9, 200, 100_001).astype(np.float32)
    values[0] = 0
    found = values.copy()
    cpu_attention._exponentials(found, np.empty(len(found), np.int32))
    expected = np.exp(np.maximum(values.astype(np.float64), -87))
    assert found[0] == 1
    assert float(np.abs(found / expected - 1).max()) <= 2 * 2**-23
    odd = np.array([np.nan, -np.inf], np.float32)
    cpu_attention._exponentials(odd, np.empty(2, np.int32))
    assert np.isnan(odd[0]) and 0 <= odd[1] < 1e-37
