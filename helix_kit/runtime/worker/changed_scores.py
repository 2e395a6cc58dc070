"""Attention that changes its scores before the softmax: Gemma-2 caps them, GPT-OSS adds sinks.

`torch.nn.functional.scaled_dot_product_attention` computes neither, and nor do the kernels for GPUs here. The numbers
are rounded where transformers' eager attention rounds them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class ChangedScores:
    """What a layer does to its scores."""

    softcap: float | None = None
    """Scores s become softcap x tanh(s / softcap); None: they stay as they are."""
    sinks: torch.Tensor | None = None
    """(heads,): a score of each query head that takes part in the softmax and has no value; None: there are none."""

    @property
    def words(self) -> str:
        """What a layer does, for messages."""
        return "capped scores" if self.sinks is None else "attention sinks"

    def attend(
        self,
        query: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        is_seen: torch.Tensor,
        scaling: float | None,
    ) -> torch.Tensor:
        """Attention with changed scores.

        Parameters
        ----------
        query
            (requests, kv heads, query heads of a kv head x tokens, head dim): heads come before tokens.
        keys, values
            (requests, kv heads, seen, head dim).
        is_seen
            Which keys a query sees: broadcasts to (requests, kv heads, query heads of a kv head x tokens, seen).
        scaling
            Factor of the scores; None: 1 / sqrt(head dim).

        Returns
        -------
        torch.Tensor
            Of the shape of `query`.
        """
        scores = query @ keys.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
        if self.softcap is not None:
            scores = torch.tanh(scores / self.softcap) * self.softcap
        scores = scores.masked_fill(~is_seen, torch.finfo(scores.dtype).min)
        if self.sinks is None:
            return torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype) @ values
        kv_heads, rows = query.shape[1:3]
        per_head = self.sinks.to(scores.dtype).view(kv_heads, -1)
        sinks = per_head.repeat_interleave(rows // per_head.shape[1], dim=1)[None, :, :, None]
        scores = torch.cat([scores, sinks.expand(len(query), -1, -1, -1)], dim=-1)
        scores = scores - scores.amax(dim=-1, keepdim=True)
        return torch.softmax(scores, dim=-1)[..., :-1] @ values
