"""Products of rows with weights of few bits on a CPU, by numba's kernels, and the threads that share such work."""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
import torch.nn.functional as F

from helix_kit.runtime.weights.low_bit import LowBitWeight

FEW_ROWS = 16
"""Up to so many rows of float32 a CPU multiplies while it expands, and up to a third as many of narrower numbers. With
more, torch's product makes up for the expanded copy."""

BLOCK_WEIGHTS = 1 << 19
"""Weights that are expanded at once with more rows: 2 MB of float32, or half as much of bfloat16."""


class CpuProduct:
    """A kept weight as numba's kernels read it, without a copy."""

    def __init__(self, weight: LowBitWeight) -> None:
        from helix_kit.runtime.worker import low_bit_kernels

        self._kernels, self._outputs, self._inputs = low_bit_kernels, *weight.shape
        self._kind = low_bit_kernels.KINDS[weight.kind]
        # Small floating-point numbers have no zeros: the kernel does not look at what it is given.
        zeros = weight.codes if weight.zeros is None else weight.zeros
        self._matrix = weight.codes.numpy(), weight.scales.numpy(), zeros.numpy()

    def multiply(self, x: torch.Tensor) -> torch.Tensor:
        """Rows (..., in) to rows (..., out)."""
        few = x.shape[:-1].numel() <= (FEW_ROWS if x.dtype == torch.float32 else FEW_ROWS // 3)
        return self._multiply_while_expanding(x) if few else self._expand_and_multiply(x)

    def _multiply_while_expanding(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.reshape(-1, self._inputs).float().contiguous().numpy()
        result = np.empty((len(rows), self._outputs), np.float32)
        divide(
            self._outputs,
            lambda first, last: self._kernels.multiply(
                self._kind, rows, (*self._matrix, self._kernels.E4M3), result, first, last
            ),
        )
        return torch.from_numpy(result).to(x.dtype).view(*x.shape[:-1], self._outputs)

    def _expand_and_multiply(self, x: torch.Tensor) -> torch.Tensor:
        """By torch's product, for some outputs at a time, whose weights stay in the processor's cache."""
        rows = x.reshape(-1, self._inputs)
        result = x.new_empty((len(rows), self._outputs))
        step = min(self._outputs, max(16, BLOCK_WEIGHTS // self._inputs))
        is_bfloat16 = x.dtype == torch.bfloat16
        expand = self._kernels.expand_to_bfloat16 if is_bfloat16 else self._kernels.expand
        weights = np.empty((step, self._inputs), np.uint16 if is_bfloat16 else np.float32)
        expanded = torch.from_numpy(weights).view(torch.bfloat16) if is_bfloat16 else torch.from_numpy(weights)
        for first in range(0, self._outputs, step):
            count = min(step, self._outputs - first)
            codes, scales, zeros = (part[first : first + count] for part in self._matrix)
            block = (codes, scales, zeros, self._kernels.E4M3)
            divide(count, functools.partial(expand, self._kind, block, weights))
            result[:, first : first + count] = F.linear(rows, expanded[:count].to(x.dtype))
        return result.view(*x.shape[:-1], self._outputs)


def divide(count: int, work: Callable[[int, int], None]) -> None:
    """Run `work` for ranges of the numbers below `count`, in as many threads as torch uses."""
    threads = torch.get_num_threads()
    bounds = [count * part // threads for part in range(threads + 1)]
    others = [_threads(threads - 1).submit(work, *bounds[part : part + 2]) for part in range(1, threads)]
    work(*bounds[:2])
    for other in others:
        other.result()


@functools.lru_cache(maxsize=1)
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="low-bit")
