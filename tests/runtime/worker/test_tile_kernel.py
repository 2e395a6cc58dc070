"""Products by tiles are those of float64, whatever the numbers of rows, outputs, inputs and threads are."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from helix_kit.runtime.worker import tile_kernel  # noqa: E402
from helix_kit.runtime.worker.tile_kernel import LANES, MAX_ROWS, TileProduct  # noqa: E402


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def check(rows: torch.Tensor, weight: torch.Tensor) -> None:
    result = TileProduct(weight).multiply(rows)
    expected = rows.double() @ weight.double().t()
    assert result.dtype == torch.float32 and result.shape == expected.shape
    # Each of the products may be off by half a unit in its last place, and so may each sum of two.
    allowed = rows.shape[-1] * 2**-24 * (rows.double().abs() @ weight.double().abs().t())
    assert bool(((result.double() - expected).abs() <= allowed).all())


@given(rows=st.integers(1, 4 * MAX_ROWS + 1), outputs=st.integers(1, 150), vectors=st.integers(1, 12))
def test_a_product_is_that_of_exact_numbers(rows: int, outputs: int, vectors: int) -> None:
    check(numbers(rows, vectors * LANES), numbers(outputs, vectors * LANES))


@pytest.mark.parametrize("rows", [1, 2, MAX_ROWS, MAX_ROWS + 1])
@pytest.mark.parametrize("inputs", [tile_kernel.PART_NUMBERS, tile_kernel.PART_NUMBERS + LANES, 14336])
def test_inputs_are_multiplied_in_parts(rows: int, inputs: int) -> None:
    check(numbers(rows, inputs), numbers(7, inputs))


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_share_the_outputs(threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        check(numbers(5, 64), numbers(2, 64))  # fewer outputs than threads
        check(numbers(5, 64), numbers(131, 64))
    finally:
        torch.set_num_threads(before)


def test_rows_of_any_shape_and_strides_are_taken() -> None:
    check(numbers(64), numbers(8, 64))
    check(numbers(2, 3, 64), numbers(8, 64))
    check(numbers(64, 6).t(), numbers(8, 64))
    assert TileProduct(numbers(8, 64)).multiply(numbers(0, 64)).shape == (0, 8)


def test_weights_may_lie_at_any_address() -> None:
    """Those of a file that is mapped into memory begin where its header ends."""
    memory = numbers(1 + 9 * 32)
    check(numbers(3, 32), memory[1:].view(9, 32))


def test_what_is_not_a_number_stays_so() -> None:
    weight = numbers(8, 64)
    weight[3, 5] = float("nan")
    weight[4, 6] = float("inf")
    result = TileProduct(weight).multiply(torch.ones(2, 64))
    assert result[:, 3].isnan().all() and result[:, 4].isinf().all()
    others = [output for output in range(8) if output not in (3, 4)]
    assert bool(result[:, others].isfinite().all())


def test_what_the_kernel_does_not_suit() -> None:
    assert TileProduct.suits(numbers(3, 2 * LANES))
    assert not TileProduct.suits(numbers(3, 2 * LANES + 1))
    assert not TileProduct.suits(numbers(2 * LANES, 3).t())
    assert not TileProduct.suits(numbers(3, 2 * LANES).bfloat16())
