"""Attention over pages equals plain attention over the same keys and values. (Whole models: test_model_layers.py.)"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from helix_kit.runtime.worker import attention  # noqa: E402
from helix_kit.runtime.worker.kv_cache import BlockTable, PagedRows, PagePool  # noqa: E402

HEADS, KV_HEADS, DIM = 4, 2, 8


def plain_attention(query, keys, values, last_seen: int, window: int | None) -> np.ndarray:
    """One row of one head, in numpy."""
    low = 0 if window is None else max(0, last_seen + 1 - window)
    scores = keys[low : last_seen + 1] @ query / np.sqrt(DIM)
    weights = np.exp(scores - scores.max())
    return weights / weights.sum() @ values[low : last_seen + 1]


@pytest.mark.parametrize("window", [None, 5])
def test_chunks_and_decodes_see_what_they_should(window: int | None) -> None:
    """Three requests, one of which starts a prompt, one goes on with it after 18 tokens, and one decodes."""
    generator = torch.Generator().manual_seed(0)
    pool = PagePool(20, KV_HEADS, DIM, torch.float32, torch.device("cpu"))
    tables, history = [BlockTable(1) for _ in range(3)], [[], [], []]
    layer = SimpleNamespace(layer_idx=7)
    for step in ([(1, 18), (2, 20)], [(0, 6), (1, 4), (2, 1)]):
        rows, position = [], [len(h) for h in history]
        for request, tokens in step:
            tables[request].grow(pool, tokens)
            rows.append(PagedRows(tables[request], 0, position[request], tokens))
        total = sum(tokens for _, tokens in step)
        query, key, value = (
            torch.randn(1, heads, total, DIM, generator=generator) for heads in (HEADS, KV_HEADS, KV_HEADS)
        )
        layout = attention.lay_out(pool, 7, 1, rows)
        out, _ = attention.attend(layer, query, key, value, None, step=layout, sliding_window=window)
        at = 0
        for request, tokens in step:
            history[request] += [(key[0, :, row].numpy(), value[0, :, row].numpy()) for row in range(at, at + tokens)]
            keys, values = (np.array([pair[i] for pair in history[request]]) for i in (0, 1))
            for row in range(tokens):
                for head in range(HEADS):
                    kv_head, seen = head // (HEADS // KV_HEADS), position[request] + row
                    expected = plain_attention(
                        query[0, head, at + row].numpy(), keys[:, kv_head], values[:, kv_head], seen, window
                    )
                    np.testing.assert_allclose(out[0, at + row, head].numpy(), expected, atol=1e-5)
            at += tokens


def test_decodes_are_grouped_by_length() -> None:
    decode = [
        attention.DecodeRow(row, 0, np.zeros((1, pages), dtype=np.int64))
        for row, pages in enumerate((1, 9, 2, 1, 3, 1))
    ]
    rows = [[one.row for one in group] for group in attention._by_length(decode, 6)]
    assert rows == [[1], [4, 2], [0, 3, 5]]  # 9 pages alone; twice 3; three times 1
    assert attention._by_length(decode, 54) == attention._by_length(decode, None) == [decode]  # all padded to 9 are 54
