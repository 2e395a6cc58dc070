"""Sizes of padded steps, parts of contexts, and the block tables on the device."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from helix_kit.errors import HelixKitError  # noqa: E402
from helix_kit.runtime.worker import torch_kernels  # noqa: E402
from helix_kit.runtime.worker.kv_cache import BlockTable, PagedRows, PagePool  # noqa: E402
from helix_kit.runtime.worker.static_batch import (  # noqa: E402
    DeviceTables,
    HeadShape,
    StepBuffers,
    bucket_of,
    buckets_up_to,
    num_splits,
)
from helix_kit.runtime.worker.step_kernels import StepKernels  # noqa: E402
from helix_kit.runtime.worker.varlen import VarlenAttention  # noqa: E402


@given(st.integers(1, 3000), st.booleans())
def test_padding_is_small_and_buckets_are_few(rows: int, decode: bool) -> None:
    padded = bucket_of(rows, decode=decode)
    assert padded >= rows and bucket_of(padded, decode=decode) == padded
    assert padded - rows < max(64 if not decode else 32, 0.5 * padded)
    sizes = buckets_up_to(rows, decode=decode)
    assert padded == sizes[-1] and sizes == sorted(set(sizes)) and len(sizes) <= 20 + rows / 32


@given(st.integers(1, 512), st.integers(1, 16), st.integers(1, 200))
def test_contexts_are_split_in_powers_of_two_until_the_processors_have_work(rows, kv_heads, processors) -> None:
    parts = num_splits(rows, kv_heads, processors)
    assert parts in (1, 2, 4, 8, 16, 32)
    # Four programs for each processor are wanted: half of the parts would be too few of them, or these are enough.
    if 1 < parts < 32:
        assert rows * kv_heads * parts <= 4 * processors < rows * kv_heads * parts * 2


@pytest.mark.parametrize(
    ("heads", "rows"), [((32, 32, 128), 64), ((32, 8, 128), 16), ((6, 2, 64), 16), ((64, 8, 128), 16), ((4, 2, 64), 32)]
)
def test_a_block_has_about_64_queries_and_at_least_16_rows(heads, rows) -> None:
    """Three query heads for a key head are padded to four."""
    assert HeadShape(*heads).block_rows == rows


@pytest.fixture
def pool() -> PagePool:
    return PagePool(40, 1, 2, torch.float32, torch.device("cpu"))


def grown(pool: PagePool, layers: int, tokens: int) -> BlockTable:
    table = BlockTable(layers)
    table.grow(pool, tokens)
    return table


def test_tables_hold_the_pages_of_each_layer_and_take_new_ones(pool: PagePool) -> None:
    tables = DeviceTables(pool, (4, 7), num_rows=2, max_pages=4)
    one = grown(pool, 3, 17)  # two pages in each of three layers
    late = grown(pool, 1, 5)  # enters at the last layer
    row, other = tables.rows_of([(one, 4), (late, 6)])
    assert tables.pages[row, :, :2].tolist() == one.pages.tolist()
    assert tables.pages[other, 2, 0] == late.pages[0, 0]
    assert (tables.pages[other, :2] == pool.padding_page).all()
    one.grow(pool, 30)
    assert tables.rows_of([(one, 4)]) == [row]
    assert tables.pages[row, :, :3].tolist() == one.pages.tolist()


def test_the_row_that_was_not_used_for_longest_is_given_to_a_new_request(pool: PagePool) -> None:
    tables = DeviceTables(pool, (0, 1), num_rows=2, max_pages=4)
    a, b, c = (grown(pool, 1, 1) for _ in range(3))
    row_a, row_b = tables.rows_of([(a, 0), (b, 0)])
    tables.rows_of([(a, 0)])
    assert tables.rows_of([(c, 0)]) == [row_b]
    assert tables.pages[row_a, 0, 0] == a.pages[0, 0] and tables.pages[row_b, 0, 0] == c.pages[0, 0]


def test_a_table_that_was_released_is_sent_again(pool: PagePool) -> None:
    tables = DeviceTables(pool, (0, 1), num_rows=2, max_pages=4)
    table = grown(pool, 1, 17)
    [row] = tables.rows_of([(table, 0)])
    table.release(pool)
    taken = grown(pool, 1, 17)  # takes the pages that have become free
    table.grow(pool, 17)
    assert tables.rows_of([(table, 0)]) == [row]
    assert tables.pages[row, 0, :2].tolist() == table.pages[0].tolist() != taken.pages[0].tolist()


def test_a_context_beyond_the_models_is_refused(pool: PagePool) -> None:
    tables = DeviceTables(pool, (0, 1), num_rows=2, max_pages=2)
    with pytest.raises(HelixKitError, match="3 pages in each layer: expected at most 2"):
        tables.rows_of([(grown(pool, 1, 33), 0)])


class Read:
    """An event of the device: it has read the copy on the host when it is waited for, and not before."""

    def __init__(self, buffers: StepBuffers, turn: int) -> None:
        self.buffers, self.turn, self.given = buffers, turn, None

    def record(self) -> None:
        self.given = self.buffers._arrays[self.turn].copy()

    def synchronize(self) -> None:
        if self.given is not None:
            assert (self.buffers._arrays[self.turn] == self.given).all(), "written before the device has read it"


def test_a_copy_on_the_host_is_written_again_only_when_the_device_has_read_it(pool: PagePool) -> None:
    tables = DeviceTables(pool, (0, 1), 4, 4)
    table = grown(pool, 1, 40)
    [row] = tables.rows_of([(table, 0)])
    buffers = StepBuffers(tables, pool, 0, 16, 8, StepKernels(torch_kernels), block_rows=16)
    buffers._read = [Read(buffers, 0), Read(buffers, 1)]
    for position in range(6):
        buffers.fill(1, [row], [PagedRows(table, 0, position, 1)], decode=True)
        assert buffers.batch(1, decode=True).positions.tolist() == [position]
        # The device may still read the copy of this step while the next one is written.
        assert buffers._read[position % 2].given[0] == position


def test_rows_by_request_leave_padding_out(pool: PagePool) -> None:
    """Three requests of a step of 16 rows, then one request of a smaller step: what stood there before is not seen."""
    tables = DeviceTables(pool, (0, 1), 4, 4)
    kernels = StepKernels(torch_kernels, VarlenAttention(lambda: None))
    buffers = StepBuffers(tables, pool, 0, 16, 8, kernels, block_rows=4)
    requests = [grown(pool, 1, tokens) for tokens in (30, 9, 1)]
    rows = tables.rows_of([(table, 0) for table in requests])
    step = [PagedRows(requests[0], 0, 23, 7), PagedRows(requests[1], 0, 5, 4), PagedRows(requests[2], 0, 0, 1)]
    buffers.fill(16, rows, step, decode=False)
    found = buffers.batch(16, decode=False).sequences
    assert found.starts[:5].tolist() == [0, 7, 11, 12, 12] and set(found.starts[4:].tolist()) == {12}
    assert found.seen[:3].tolist() == [30, 9, 1] and found.table_rows[:3].tolist() == rows
    buffers.fill(16, rows[1:2], [PagedRows(requests[1], 0, 7, 2)], decode=False)
    again = buffers.batch(16, decode=False).sequences
    assert set(again.starts[1:].tolist()) == {2} and again.seen[0] == 9 and again.longest == 16
    assert set(again.table_rows.tolist()) == {rows[1]} and int(again.seen.max()) == 9
    buffers.fill(4, rows[:2], [PagedRows(requests[0], 0, 29, 1), PagedRows(requests[1], 0, 8, 1)], decode=True)
    decodes = buffers.batch(4, decode=True).sequences
    assert decodes.starts.tolist() == [0, 1, 2, 3, 4] and decodes.longest == 1
    assert decodes.seen.tolist() == [30, 9, 1, 1]
    assert decodes.table_rows.tolist() == [*rows[:2], tables.padding_row, tables.padding_row]
