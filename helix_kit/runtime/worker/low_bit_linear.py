"""Linear layers and experts whose weights stay in few bits; they replace those of a model, whose code stays unchanged.

Weights are expanded where they are used. With few rows on a CPU, `low_bit_kernels` does it row by row of the matrix.
Otherwise a part of the matrix, or on a GPU all of it, is expanded to the dtype of the step, multiplied and dropped.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from helix_kit.runtime.weights.low_bit import LowBitWeight

FEW_ROWS = 16
"""Up to so many rows of float32 a CPU multiplies while it expands, and up to half as many of narrower numbers. With
more, torch's product makes up for the expanded copy."""

BLOCK_WEIGHTS = 1 << 19
"""Weights that are expanded at once with more rows: 2 MB of float32."""

Tensors = Mapping[str, torch.Tensor | LowBitWeight | tuple[LowBitWeight, ...]]
"""A layer's tensors by their names; experts are a tuple with a matrix for each of them."""


class LowBitLinear(torch.nn.Module):
    """``x @ weight.T + bias`` for a kept weight."""

    def __init__(self, weight: LowBitWeight, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.low_bit, self._bias = weight, bias
        self._on_cpu = _CpuProduct(weight) if weight.codes.device.type == "cpu" else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Rows (..., in) to rows (..., out)."""
        if self._on_cpu is None:
            return F.linear(x, self.low_bit.expand(x.dtype), self._bias)
        few = x.shape[:-1].numel() <= (FEW_ROWS if x.dtype == torch.float32 else FEW_ROWS // 2)
        result = self._on_cpu.multiply(x) if few else self._on_cpu.expand_and_multiply(x)
        return result if self._bias is None else result + self._bias

    of = forward


class _CpuProduct:
    """A kept weight as numba's kernels read it, without a copy."""

    def __init__(self, weight: LowBitWeight) -> None:
        from helix_kit.runtime.worker import low_bit_kernels

        self._kernels, self._outputs, self._inputs = low_bit_kernels, *weight.shape
        self._kind = low_bit_kernels.KINDS[weight.kind]
        # Codes of fp8 have no zeros: the kernel does not look at what it is given.
        zeros = weight.codes if weight.zeros is None else weight.zeros
        self._matrix = weight.codes.numpy(), weight.scales.numpy(), zeros.numpy()

    def multiply(self, x: torch.Tensor) -> torch.Tensor:
        """Rows (..., in) to rows (..., out), multiplied while they are expanded."""
        rows = x.reshape(-1, self._inputs).float().contiguous().numpy()
        result = np.empty((len(rows), self._outputs), np.float32)
        self._divide(
            self._outputs,
            lambda first, last: self._kernels.multiply(
                self._kind, rows, (*self._matrix, self._kernels.E4M3), result, first, last
            ),
        )
        return torch.from_numpy(result).to(x.dtype).view(*x.shape[:-1], self._outputs)

    def expand_and_multiply(self, x: torch.Tensor) -> torch.Tensor:
        """The same by torch's product, for some outputs at a time, whose weights stay in the processor's cache."""
        rows = x.reshape(-1, self._inputs)
        result = x.new_empty((len(rows), self._outputs))
        step = min(self._outputs, max(16, BLOCK_WEIGHTS // self._inputs))
        weights = np.empty((step, self._inputs), np.float32)
        for first in range(0, self._outputs, step):
            count = min(step, self._outputs - first)
            codes, scales, zeros = (part[first : first + count] for part in self._matrix)
            block = (codes, scales, zeros, self._kernels.E4M3)
            self._divide(count, functools.partial(self._expand, block, weights))
            result[:, first : first + count] = F.linear(rows, torch.from_numpy(weights[:count]).to(x.dtype))
        return result.view(*x.shape[:-1], self._outputs)

    def _expand(self, block: tuple[Any, ...], weights: Any, first: int, last: int) -> None:
        self._kernels.expand(self._kind, block, weights, first, last)

    @staticmethod
    def _divide(outputs: int, work: Callable[[int, int], None]) -> None:
        """Run `work` for ranges of outputs in as many threads as torch uses."""
        threads = torch.get_num_threads()
        bounds = [outputs * part // threads for part in range(threads + 1)]
        others = [_threads(threads - 1).submit(work, *bounds[part : part + 2]) for part in range(1, threads)]
        work(*bounds[:2])
        for other in others:
            other.result()


@functools.lru_cache(maxsize=1)
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="low-bit")


class LowBitExperts(torch.nn.Module):
    """Experts of a layer, each with two kept matrices. The gate between them is the replaced module's own."""

    def __init__(
        self, gate_up: tuple[LowBitWeight, ...], down: tuple[LowBitWeight, ...], gate: Callable[[Any], torch.Tensor]
    ) -> None:
        super().__init__()
        self.gate_up = torch.nn.ModuleList(LowBitLinear(weight, None) for weight in gate_up)
        self.down = torch.nn.ModuleList(LowBitLinear(weight, None) for weight in down)
        self._gate = gate

    def forward(self, hidden: torch.Tensor, chosen: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        """Rows (rows, hidden) after the experts `chosen` (rows, active), weighted by `shares` (rows, active)."""
        result = torch.zeros_like(hidden)
        for expert in chosen.unique().tolist():
            rows, places = torch.where(chosen == expert)
            values = self.down[expert](self._gate(self.gate_up[expert](hidden[rows])))
            result.index_add_(0, rows, (values * shares[rows, places, None]).to(hidden.dtype))
        return result


def place_low_bit(layer: torch.nn.Module, tensors: Tensors) -> dict[str, torch.Tensor]:
    """Put the kept matrices of a layer in the places of its modules; returns the tensors that are left to load."""
    left: MutableMapping[str, Any] = dict(tensors)
    for name in [name for name, tensor in left.items() if isinstance(tensor, LowBitWeight)]:
        path = name.removesuffix(".weight")
        parent, _, child = path.rpartition(".")
        module = LowBitLinear(left.pop(name), left.pop(f"{path}.bias", None))
        setattr(layer.get_submodule(parent), child, module)
    if any(isinstance(tensor, tuple) for tensor in left.values()):
        block: Any = layer.get_submodule("mlp")
        gate_up, down = (left.pop(f"mlp.experts.{part}") for part in ("gate_up_proj", "down_proj"))
        block.experts = LowBitExperts(gate_up, down, block.experts._apply_gate)
    return dict(left)
