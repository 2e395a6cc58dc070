"""Counts of a request's tokens, against Counter over the whole list."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from helix_kit.runtime.worker.token_counts import TokenCounts


@given(st.lists(st.integers(0, 300), max_size=400), st.integers(0, 400), st.integers(1, 50))
def test_counts_are_those_of_the_whole_request(tokens: list[int], prompt_tokens: int, chunk: int) -> None:
    counts = TokenCounts(prompt_tokens)
    for at in range(0, len(tokens), chunk):
        counts.add(tokens[at : at + chunk])
    answer = Counter(tokens[prompt_tokens:])
    assert counts.ids.tolist() == list(dict.fromkeys(tokens))
    assert counts.generated.tolist() == [answer[token] for token in counts.ids.tolist()]
