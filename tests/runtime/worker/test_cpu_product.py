"""Work that expands and multiplies is divided over threads in each of which torch has one thread."""

from __future__ import annotations

import threading

import pytest

torch = pytest.importorskip("torch")

from helix_kit.runtime.worker.cpu_product import divide_products  # noqa: E402


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_each_range_is_computed_once_by_a_thread_of_its_own(threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        seen = []
        divide_products(7, lambda *span: seen.append((*span, torch.get_num_threads(), threading.current_thread().name)))
        divide_products(1, lambda *span: seen.append((*span, "alone", "")))
        assert torch.get_num_threads() == threads  # the caller's own number stays
    finally:
        torch.set_num_threads(before)
    assert seen.pop() == (0, 1, "alone", "")
    assert sorted(layer for first, last, *_ in seen for layer in range(first, last)) == list(range(7))
    assert len(seen) == threads and all(count == 1 for _, _, count, _ in seen)
    assert threads == 1 or threading.current_thread().name not in {name for *_, name in seen}


def test_an_error_of_a_range_reaches_the_caller() -> None:
    def fail(first: int, last: int) -> None:
        raise RuntimeError(f"range {first}")

    with pytest.raises(RuntimeError, match="range 0"):
        divide_products(2, fail)
