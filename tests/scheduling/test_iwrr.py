"""Interleaved weighted round robin: no candidate is far from its share."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from helix_kit.scheduling.iwrr import Iwrr


@given(st.lists(st.integers(1, 50), min_size=1, max_size=8), st.integers(1, 400))
def test_iwrr_is_never_more_than_one_turn_from_its_share(weights, turns):
    wheel = Iwrr([float(w) for w in weights])
    counts = Counter(wheel.choose(1.0) for _ in range(turns))
    for index, weight in enumerate(weights):
        assert abs(counts[index] - turns * weight / sum(weights)) <= len(weights)
