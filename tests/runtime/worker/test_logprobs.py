"""Log-probabilities against a softmax in numpy."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from helix_kit.runtime.worker import logprobs  # noqa: E402
from helix_kit.runtime.worker.logprobs import fields_of, logprobs_of_known, packed_logprobs, packed_width  # noqa: E402


def log_softmax(scores: np.ndarray) -> np.ndarray:
    scores = scores.astype(np.float64)
    return scores - np.log(np.exp(scores).sum(-1, keepdims=True))


def test_rank_and_alternatives() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0, -1.0]])
    expected = log_softmax(logits.numpy())[0]
    packed = packed_logprobs(logits, torch.tensor([2]), 3)
    assert packed.shape == (1, packed_width(3)) and packed.dtype == torch.float64
    fields = fields_of(packed[0].tolist(), 2)
    assert (fields.logprob, fields.rank) == (pytest.approx(expected[2], abs=1e-6), 2)
    assert [token for token, _ in fields.top] == [1, 2]
    assert [value for _, value in fields.top] == pytest.approx([expected[1], expected[2]], abs=1e-6)
    # The same number twice, bit by bit: clients compare the token's with the best one's.
    assert fields.top[1][1] == fields.logprob


def test_more_alternatives_than_tokens() -> None:
    fields = fields_of(packed_logprobs(torch.zeros(1, 3), torch.tensor([0]), 5)[0].tolist(), 5)
    assert sorted(token for token, _ in fields.top) == [0, 1, 2]


def test_known_tokens_of_several_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logprobs, "ROWS_AT_ONCE", 2)
    generator = torch.Generator().manual_seed(3)
    head = torch.randn(8, 11, generator=generator)
    hidden = [torch.randn(n, 8, generator=generator) for n in (5, 1)]
    targets = [[3, 1, 4, 1, 5], [9]]
    found = logprobs_of_known(lambda rows: rows @ head, hidden, targets, [1, 0])
    for rows, tokens, fields, top in zip(hidden, targets, found, (1, 0), strict=True):
        expected = log_softmax((rows @ head).numpy())
        assert [f.logprob for f in fields] == pytest.approx(expected[range(len(tokens)), tokens], abs=1e-5)
        assert [len(f.top) for f in fields] == [top] * len(tokens)
