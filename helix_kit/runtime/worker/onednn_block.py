"""A block of outputs in oneDNN's own layout for bfloat16, whose weights we may write.

oneDNN copies a plain matrix into this layout for each product. A block that is expanded into the layout itself saves
that copy: 16 rows with 4,096 x 4,096 weights then take 1.2 ms of one core in place of 1.9 ms.

The layout is no part of oneDNN's interface, so `OneDnnBlock.of` compares it with what is expected: blocks of 64
outputs, in which the weights of two neighbouring inputs lie side by side for one output after another.
"""

from __future__ import annotations

import ctypes
import threading
from typing import Any

import numpy as np
import torch

from helix_kit.runtime.worker.layout_choice import pack, packed_product
from helix_kit.runtime.worker.pair_kernel import BLOCK

_KEPT = threading.local()


class OneDnnBlock:
    """Weights of some outputs. `words` (blocks, inputs / 2, 64) are their bits; each holds two bfloat16."""

    def __init__(self, packed: torch.Tensor, words: np.ndarray[Any, Any]) -> None:
        self._packed, self.words = packed, words

    @classmethod
    def of(cls, outputs: int, inputs: int) -> OneDnnBlock | None:
        """A block of this shape, the same one for each call of a thread; None where oneDNN has another layout."""
        kept: dict[tuple[int, int], OneDnnBlock | None] = _KEPT.__dict__.setdefault("blocks", {})
        if (outputs, inputs) not in kept:
            kept[outputs, inputs] = cls._new(outputs, inputs)
        return kept[outputs, inputs]

    @classmethod
    def _new(cls, outputs: int, inputs: int) -> OneDnnBlock | None:
        if outputs % BLOCK or inputs % 2:
            return None
        numbers = (torch.arange(outputs * inputs) * 2654435761 >> 9).remainder(30011).add(17000)
        weights = numbers.to(torch.int16).view(torch.bfloat16).view(outputs, inputs)
        packed = pack(weights)
        words = None if packed is None else _words_of(packed, outputs, inputs)
        if packed is None or words is None or not np.array_equal(words, pairs_of(weights)):
            return None
        return cls(packed, words)

    def multiply(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows (rows, inputs) to rows (rows, outputs)."""
        return packed_product(rows, self._packed, None)


def pairs_of(weights: torch.Tensor) -> np.ndarray[Any, Any]:
    """The words of a plain matrix (outputs, inputs) in bfloat16."""
    bits = weights.contiguous().view(torch.int16).numpy().view(np.uint16).astype(np.uint32)
    words: np.ndarray[Any, Any] = bits[:, ::2] | (bits[:, 1::2] << np.uint32(16))
    return words.reshape(-1, BLOCK, words.shape[1]).transpose(0, 2, 1)


def _words_of(packed: torch.Tensor, outputs: int, inputs: int) -> np.ndarray[Any, Any] | None:
    """The memory of a packed matrix; None where it has another size."""
    try:
        size, start = torch.ops.mkldnn._nbytes(packed), torch.ops.mkldnn.data_ptr(packed)
    except (AttributeError, RuntimeError):  # a build of torch without these operators
        return None
    if size != outputs * inputs * 2:
        return None
    memory = (ctypes.c_uint32 * (size // 4)).from_address(start)
    return np.frombuffer(memory, np.uint32).reshape(outputs // BLOCK, inputs // 2, BLOCK)
