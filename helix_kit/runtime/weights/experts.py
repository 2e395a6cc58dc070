"""Experts as checkpoints store them, and as transformers' layers hold them.

Most checkpoints have three matrices for each expert. A layer of transformers has two tensors for all experts: gate and
up together, (experts, 2 x width, hidden), and down, (experts, hidden, width). GPT-OSS is stored as it is held.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from helix_kit.runtime.weights.families import ExpertNames

if TYPE_CHECKING:
    import torch


def is_expert(name: str, names: ExpertNames) -> bool:
    """Whether a tensor, by its name in the layer, is one matrix of one expert."""
    return _matrix(names).fullmatch(name) is not None


def _matrix(names: ExpertNames) -> re.Pattern[str]:
    kinds = "|".join((names.gate, names.up, names.down))
    return re.compile(rf"{re.escape(names.block)}\.experts\.(\d+)\.({kinds})\.weight")


def join_experts(
    stored: Mapping[str, torch.Tensor], names: ExpertNames, dtype: torch.dtype, device: torch.device
) -> dict[str, torch.Tensor]:
    """The experts of a layer as transformers' layer holds them.

    Parameters
    ----------
    stored
        All matrices of all experts, by their names in the layer. They may be parts of mapped files, of any dtype: the
        result is filled in matrix by matrix, so no other copy of them is made.
    names
        What the family calls them.
    dtype, device
        Of the result.

    Returns
    -------
    dict
        By the parameters' names in the layer; empty where `stored` is.
    """
    import torch

    joined: dict[str, torch.Tensor] = {}
    pattern = _matrix(names)
    matches = [(match, matrix) for name, matrix in stored.items() if (match := pattern.fullmatch(name))]
    count = 1 + max((int(match[1]) for match, _ in matches), default=-1)
    for match, matrix in matches:
        rows, columns = matrix.shape
        is_down = match[2] == names.down
        target = "mlp.experts.down_proj" if is_down else "mlp.experts.gate_up_proj"
        if target not in joined:
            shape = (count, rows if is_down else 2 * rows, columns)
            joined[target] = torch.empty(shape, dtype=dtype, device=device)
        first = rows if match[2] == names.up else 0
        joined[target][int(match[1]), first : first + rows].copy_(matrix)
    return joined
