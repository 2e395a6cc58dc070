"""Capped scores and sinks, against sums over single tokens in plain Python."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from helix_kit.runtime.worker.changed_scores import ChangedScores  # noqa: E402


@pytest.mark.parametrize("softcap", [None, 0.5])
@pytest.mark.parametrize("has_sinks", [True, False])
def test_each_head_by_hand(softcap: float | None, has_sinks: bool) -> None:
    """Two key heads with two query heads each; the first of two tokens does not see the last key."""
    generator = torch.Generator().manual_seed(0)
    query, keys, values = (torch.randn(1, 2, rows, 4, generator=generator) for rows in (4, 3, 3))
    sinks = torch.tensor([0.3, -1.0, 2.0, 0.1]) if has_sinks else None
    is_seen = torch.tensor([[True, True, False], [True, True, True]]).repeat(2, 1)
    found = ChangedScores(softcap, sinks).attend(query, keys, values, is_seen, 0.7)
    for head in range(4):
        for token in range(2):
            place, row = head // 2, (head % 2) * 2 + token
            seen = range(2 + token)
            scores = [0.7 * float(query[0, place, row] @ keys[0, place, key]) for key in seen]
            if softcap is not None:
                scores = [softcap * math.tanh(score / softcap) for score in scores]
            total = sum(map(math.exp, scores)) + (math.exp(float(sinks[head])) if has_sinks else 0.0)
            expected = sum(math.exp(score) / total * values[0, place, key] for score, key in zip(scores, seen))
            torch.testing.assert_close(found[0, place, row], expected)
