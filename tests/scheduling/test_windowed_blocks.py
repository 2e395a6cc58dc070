"""Which blocks a token sees through a window, counted token by token."""

from __future__ import annotations

import pytest

from helix_kit.scheduling.windowed_blocks import Keep, first_seen_block


@pytest.mark.parametrize("window", [1, 5, 16, 17, 40])
def test_the_first_block_that_a_token_sees(window: int) -> None:
    for position in range(100):
        seen = [token for token in range(position + 1) if token > position - window]
        assert first_seen_block(position, window) == min(token // 16 for token in seen)


def test_blocks_that_are_kept() -> None:
    assert (Keep(2, 5).size, Keep(5, 2).size) == (3, 0)
