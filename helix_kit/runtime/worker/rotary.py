"""Rotary embeddings of the positions in a step, by transformers' own module.

A module of transformers whose frequencies depend on the length (`dynamic`, `longrope`) has one set of them for all rows
of a step, which it chooses by the longest sequence. Here each row has its own frequencies, so that a request's answer
does not depend on others in its batch: `helix_kit.runtime.weights.rotary_lengths` says which.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch

from helix_kit.runtime.weights.rotary_lengths import RotaryLengths, ropes_of

Frequencies = Callable[[torch.Tensor], torch.Tensor]
"""Tokens of a sequence (1, rows) to the frequencies for it (1, rows, pairs)."""
Tables: TypeAlias = dict[str | None, tuple[torch.Tensor, torch.Tensor]]
"""Cosines and sines of the rows of a step, by the type of a layer's attention; None: of all layers."""


class Rotary:
    """Rotary tables of a model, by the type of a layer's attention where they differ (Gemma-3, OLMo-3)."""

    def __init__(self, config: Any, module: type[torch.nn.Module], device: torch.device) -> None:
        # Built on the device: the tables are not in the checkpoint, and those of a meta model hold no data.
        self._module: Any = module(config).to(device)
        self.types: list[str | None] = [None] * config.num_hidden_layers
        """Which table each layer takes: the type of its attention, or None where all layers share one table."""
        if hasattr(self._module, "layer_types"):
            self.types = list(config.layer_types)
        self._by_length: dict[str | None, Frequencies] = {}
        lengths = RotaryLengths.of(config, "config.json")
        for kind, rope in ropes_of(config).items():
            if lengths is None or rope["rope_type"] != lengths.kind:
                continue
            self._by_length[kind] = self._frequencies(config, rope, kind, lengths)
            self._let_frequencies_be_given(kind)

    @property
    def depends_on_length(self) -> bool:
        """Whether frequencies depend on the length of a request's sequence."""
        return bool(self._by_length)

    def _let_frequencies_be_given(self, kind: str | None) -> None:
        """Keep transformers' module from choosing frequencies by the longest sequence of a step."""
        if kind is None:
            self._module.rope_type = "default"
        else:
            self._module.rope_type[kind] = "default"

    def _frequencies(self, config: Any, rope: dict[str, Any], kind: str | None, lengths: RotaryLengths) -> Frequencies:
        """Those of one type of layers."""
        from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

        original = lengths.original_tokens
        short = getattr(self._module, _name(kind, "original_inv_freq")).float()
        if lengths.kind == "longrope":
            init = ROPE_INIT_FUNCTIONS["longrope"]
            long = init(config, short.device, seq_len=original + 1, layer_type=kind)[0]
            return lambda tokens: torch.where((tokens > original)[..., None], long, short)
        # As transformers computes them for one length. Its function makes tensors on the host, which a CUDA graph
        # cannot hold.
        dim, factor, theta = 2 * len(short), float(rope["factor"]), float(rope["rope_theta"])
        exponents = torch.arange(0, dim, 2, device=short.device).float() / dim

        def stretched(tokens: torch.Tensor) -> torch.Tensor:
            base = theta * (factor * tokens.clamp(min=original) / original - (factor - 1)) ** (dim / (dim - 2))
            return torch.where((tokens > original)[..., None], 1.0 / base[..., None] ** exponents, short)

        return stretched

    def of(
        self, x: torch.Tensor, positions: torch.Tensor, start: int, end: int, tokens: torch.Tensor | None = None
    ) -> Tables:
        """Cosines and sines of `positions` (1, rows) in the dtype of `x`, by the types of the layers [start, end).

        `tokens` (1, rows) are those of the sequence that each row's frequencies are for, at least; None: 0.
        """
        tables: Tables = {}
        for kind in dict.fromkeys(self.types[start:end]):
            inputs = (x, positions) if kind is None else (x, positions, kind)
            if kind not in self._by_length:
                tables[kind] = self._module(*inputs)
                continue
            lengths = positions + 1 if tokens is None else torch.maximum(tokens, positions + 1)
            frequencies = {_name(kind, "inv_freq"): self._by_length[kind](lengths)}
            tables[kind] = torch.func.functional_call(self._module, frequencies, inputs)
        return tables


def _name(kind: str | None, name: str) -> str:
    """The module's name of a buffer for layers of a type."""
    return name if kind is None else f"{kind}_{name}"
