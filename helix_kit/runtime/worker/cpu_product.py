"""Products of rows with weights of few bits on a CPU, by numba's kernels, and the threads that share such work."""

from __future__ import annotations

import functools
import threading
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
        divide_products(self._outputs, functools.partial(self._multiply_outputs, rows, result))
        return result.view(*x.shape[:-1], self._outputs)

    def _multiply_outputs(self, rows: torch.Tensor, result: torch.Tensor, start: int, end: int) -> None:
        step = min(end - start, max(16, BLOCK_WEIGHTS // self._inputs))
        is_bfloat16 = rows.dtype == torch.bfloat16
        expand = self._kernels.expand_to_bfloat16 if is_bfloat16 else self._kernels.expand
        weights = np.empty((step, self._inputs), np.uint16 if is_bfloat16 else np.float32)
        expanded = torch.from_numpy(weights).view(torch.bfloat16) if is_bfloat16 else torch.from_numpy(weights)
        for first in range(start, end, step):
            count = min(step, end - first)
            codes, scales, zeros = (part[first : first + count] for part in self._matrix)
            expand(self._kind, (codes, scales, zeros, self._kernels.E4M3), weights, 0, count)
            result[:, first : first + count] = F.linear(rows, expanded[:count].to(rows.dtype))


def divide(count: int, work: Callable[[int, int], None]) -> None:
    """Run `work` for ranges of the numbers below `count`, in as many threads as torch uses."""
    threads = torch.get_num_threads()
    if threads == 1:
        work(0, count)
        return
    bounds = [count * part // threads for part in range(threads + 1)]
    others = [_threads(threads - 1).submit(work, *bounds[part : part + 2]) for part in range(1, threads)]
    work(*bounds[:2])
    for other in others:
        other.result()


def divide_products(count: int, work: Callable[[int, int], None]) -> None:
    """As `divide`, for work that expands weights and multiplies with them by torch.

    torch computes in one thread within each of the ranges. If it computed in all threads, each product would wait for
    the expansion of all others, and threads of torch that wait keep a core busy.
    """
    threads = min(torch.get_num_threads(), count)
    if threads <= 1:
        work(0, count)
        return
    bounds = [count * part // threads for part in range(threads + 1)]
    pool = _single_threads(torch.get_num_threads())
    for part in [pool.submit(_inferred, work, *bounds[part : part + 2]) for part in range(threads)]:
        part.result()


def _inferred(work: Callable[[int, int], None], first: int, last: int) -> None:
    with torch.inference_mode():  # a thread's own setting
        work(first, last)


@functools.lru_cache(maxsize=1)
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="low-bit")


@functools.lru_cache(maxsize=1)
def _single_threads(count: int) -> ThreadPoolExecutor:
    """Threads in each of which torch computes in that thread alone."""
    all_there = threading.Barrier(count + 1)

    def start() -> None:
        torch.set_num_threads(1)
        torch.get_num_threads()  # a thread takes the process's number when it asks first, and keeps it
        all_there.wait()

    pool = ThreadPoolExecutor(count, thread_name_prefix="low-bit-product", initializer=start)
    for _ in range(count):
        pool.submit(lambda: None)
    all_there.wait()
    torch.set_num_threads(count)  # also what threads get that begin later
    return pool
