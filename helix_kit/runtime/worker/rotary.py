"""Rotary embeddings of the positions in a step, by transformers' own module."""

from __future__ import annotations

from typing import Any

import torch


class Rotary:
    """Rotary tables of a model, by the type of a layer's attention where they differ (Gemma-3, OLMo-3)."""

    def __init__(self, config: Any, module: type[torch.nn.Module], device: torch.device) -> None:
        # Built on the device: the tables are not in the checkpoint, and those of a meta model hold no data.
        self._module = module(config).to(device)
        self.types: list[str | None] = [None] * config.num_hidden_layers
        """Which table each layer takes: the type of its attention, or None where all layers share one table."""
        if hasattr(self._module, "layer_types"):
            self.types = list(config.layer_types)

    def of(
        self, x: torch.Tensor, positions: torch.Tensor, start: int, end: int
    ) -> dict[str | None, tuple[torch.Tensor, torch.Tensor]]:
        """Cosines and sines of `positions` in the dtype of `x`, by the types of the layers [start, end)."""
        return {
            kind: self._module(x, positions) if kind is None else self._module(x, positions, kind)
            for kind in dict.fromkeys(self.types[start:end])
        }
