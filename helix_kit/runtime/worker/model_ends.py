"""What families do to embeddings and logits beside the two products: factors and a soft cap.

The layers between them are transformers' own. These few lines are written out here because transformers has them in the
code of whole models, which no worker runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F


def scale_embeddings(config: Any, embeddings: torch.Tensor) -> torch.Tensor:
    """The hidden states before the first layer from rows of the embedding table, in the model's dtype."""
    if config.model_type in ("gemma", "gemma2", "gemma3_text"):
        # Rounded to the dtype of the weights first, as these families were trained.
        factor = torch.tensor(config.hidden_size**0.5, dtype=torch.float32)
        return embeddings * factor.to(device=embeddings.device, dtype=embeddings.dtype)
    if config.model_type == "granite":
        return embeddings * config.embedding_multiplier
    return embeddings


def finish_logits(config: Any, logits: torch.Tensor) -> torch.Tensor:
    """The scores of tokens from the output projection's result."""
    if config.model_type == "cohere2":
        return logits * config.logit_scale
    if config.model_type == "granite":
        return logits / config.logits_scaling
    cap = getattr(config, "final_logit_softcapping", None)
    if config.model_type in ("gemma2", "gemma3_text") and cap is not None:
        return torch.tanh(logits / cap) * cap
    return logits


def in_equal_parts(compute: Callable[[torch.Tensor], torch.Tensor], rows: torch.Tensor, size: int) -> torch.Tensor:
    """`compute` of rows (rows, width), always for `size` rows at once: the last ones are filled up with zeros.

    A library chooses how it computes a product by its number of rows. So a row gets the same bits beside any others.

    >>> in_equal_parts(lambda x: x * len(x), torch.ones(5, 1), size=3).flatten().tolist()
    [3.0, 3.0, 3.0, 3.0, 3.0]
    """
    padded = F.pad(rows, (0, 0, 0, -len(rows) % size))
    return torch.cat([compute(part) for part in padded.split(size)])[: len(rows)]
