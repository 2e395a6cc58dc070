"""`torch.nn.attention.varlen.varlen_attn` in numpy, as its documentation describes it, for machines without a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn.attention.varlen import AuxRequest


class Varlen:
    """A stand-in that keeps what it was called with.

    Parameters
    ----------
    page_tokens
        The page size that it takes alone, as FlashAttention 2 does; None: any.
    wants_lengths
        Whether it must be told where the keys of each sequence would begin without pages, as FlashAttention 2 must,
        or must not be told, as FlashAttention 3.
    """

    def __init__(self, page_tokens: int | None = None, *, wants_lengths: bool = False) -> None:
        self.page_tokens, self.wants_lengths = page_tokens, wants_lengths
        self.calls: list[dict[str, Any]] = []

    @property
    def op(self) -> Callable[..., torch.Tensor]:
        """A function with torch's signature."""

        def varlen_attn(
            query: torch.Tensor,
            key: torch.Tensor,
            value: torch.Tensor,
            cu_seq_q: torch.Tensor,
            cu_seq_k: torch.Tensor | None,
            max_q: int,
            max_k: int,
            *,
            return_aux: AuxRequest | None = None,
            scale: float | None = None,
            window_size: tuple[int, int] = (-1, -1),
            enable_gqa: bool = False,
            seqused_k: torch.Tensor | None = None,
            block_table: torch.Tensor | None = None,
            num_splits: int | None = None,
        ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
            if self.page_tokens is not None and key.shape[1] % self.page_tokens:
                raise RuntimeError(f"Paged KV cache block size must be divisible by {self.page_tokens}\nmore of it")
            assert return_aux is None and seqused_k is not None and block_table is not None
            if self.wants_lengths != (cu_seq_k is not None):
                raise RuntimeError("cu_seq_k must be set" if self.wants_lengths else "cu_seq_k must not be set")
            if cu_seq_k is not None:
                assert cu_seq_k.dtype == torch.int32 and cu_seq_k[0] == 0
                assert torch.equal(cu_seq_k.diff(), seqused_k)
            self.calls.append(
                {"max_q": max_q, "max_k": max_k, "window_size": window_size, "num_splits": num_splits, "scale": scale}
            )
            return attended(query, (key, value), cu_seq_q, (seqused_k, block_table), (max_q, max_k), scale, window_size,
                            enable_gqa)  # fmt: skip

        return varlen_attn


def attended(query, cache, cu_seq_q, paged, longest, scale, window_size, enable_gqa) -> torch.Tensor:
    """Attention of each row by itself, in float64. Rows of no sequence are not numbers."""
    seen, table = paged
    for given in (cu_seq_q, seen, table):
        assert given.dtype == torch.int32
    assert query.is_contiguous() and table.stride(-1) == 1 and len(seen) == len(table) == len(cu_seq_q) - 1
    keys, values = (store.double().numpy() for store in cache)
    page_tokens, kv_heads, dim = keys.shape[1:]
    heads = query.shape[1]
    assert enable_gqa == (heads != kv_heads)
    factor = dim**-0.5 if scale is None else scale
    out = torch.full(query.shape, float("nan"), dtype=torch.float64)
    starts = cu_seq_q.tolist()
    assert starts[0] == 0 and starts == sorted(starts) and starts[-1] <= len(query)
    left, right = window_size
    for sequence, used in enumerate(seen.tolist()):
        rows = starts[sequence + 1] - starts[sequence]
        assert rows <= longest[0] and 0 < used <= longest[1] and (rows == 0 or rows <= used)
        pages = table[sequence, : -(-used // page_tokens)].numpy()
        key, value = (store[pages].reshape(-1, kv_heads, dim)[:used] for store in (keys, values))
        for row in range(rows):
            own = used - rows + row  # masks are aligned to the end
            low = max(0, own - left) if left >= 0 else 0
            high = min(used, own + right + 1) if right >= 0 else used
            for head in range(heads):
                kv_head = head // (heads // kv_heads)
                scores = key[low:high, kv_head] @ query[starts[sequence] + row, head].double().numpy() * factor
                weights = np.exp(scores - scores.max())
                out[starts[sequence] + row, head] = torch.from_numpy(weights / weights.sum() @ value[low:high, kv_head])
    return out.to(query.dtype)
