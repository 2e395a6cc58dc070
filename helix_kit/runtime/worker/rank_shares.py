"""A rank's part of the layers in transformers' own code: fewer heads and columns, and sums where the parts meet."""

from __future__ import annotations

from typing import Any

import torch

from helix_kit.runtime.weights.shares import SUMMED, LayerShare
from helix_kit.runtime.worker.rank_group import RankGroup


def share_of(config: Any, rank: int, ranks: int) -> LayerShare:
    """The part of rank `rank`. `config`, of transformers, becomes that of the part: its heads and columns alone."""
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    share = LayerShare(
        rank, ranks, config.num_attention_heads, config.num_key_value_heads, head_dim, config.intermediate_size
    )
    config.head_dim = head_dim
    config.num_attention_heads, config.num_key_value_heads = share.own_heads, share.own_kv_heads
    config.intermediate_size = share.own_columns
    return share


class SummedLinear(torch.nn.Module):
    """A linear layer whose results are added up over the ranks."""

    def __init__(self, linear: torch.nn.Module, group: RankGroup) -> None:
        super().__init__()
        self._linear, self._group = linear, group

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Rows (..., part of in) to rows (..., out)."""
        return self._group.add_up(self._linear(x))


def add_up_results(layer: torch.nn.Module, group: RankGroup) -> None:
    """Let the attention and the MLP of a decoder layer give the sums over all ranks."""
    for name in SUMMED:
        parent, _, child = name.rpartition(".")
        module = layer.get_submodule(parent)
        setattr(module, child, SummedLinear(getattr(module, child), group))
