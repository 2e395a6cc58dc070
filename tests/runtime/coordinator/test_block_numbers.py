"""Blocks by content: equal hashes for equal beginnings only, and numbers that are used again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch")

from helix_kit.runtime.coordinator.block_numbers import BlockNumbers, block_hashes

texts = st.lists(st.integers(0, 2), max_size=50)


@given(texts, texts)
def test_hashes_are_equal_as_far_as_the_texts_are(one: list[int], other: list[int]) -> None:
    hashes, others = block_hashes(one), block_hashes(other)
    assert len(hashes) == len(one) // 16
    for place, (a, b) in enumerate(zip(hashes, others, strict=False), 1):
        assert (a == b) == (one[: 16 * place] == other[: 16 * place])


def test_hashes_go_on_after_a_block_and_tell_blocks_apart_by_what_came_before() -> None:
    text = list(range(64))
    hashes = block_hashes(text)
    assert block_hashes(text[32:], before=hashes[1]) == hashes[2:]
    assert block_hashes(text[16:]) != hashes[1:]
    assert block_hashes([]) == block_hashes(text[:15]) == []


def test_numbers_go_when_the_last_worker_has_lost_the_block() -> None:
    numbers, keys = BlockNumbers(), [b"a", b"b", b"c"]
    first = numbers.of(keys)
    numbers.held(np.concatenate([first, first[:1]]))
    numbers.no_longer_held(first)
    assert numbers.known(keys).tolist() == first[:1].tolist() and len(numbers) == 1
    again = numbers.of([b"d", b"e", b"f"])
    assert set(again.tolist()) >= set(first[1:].tolist()) and first[0] not in again
    numbers.forget_unheld([b"d", b"e", b"f", b"a"])
    assert len(numbers) == 1
