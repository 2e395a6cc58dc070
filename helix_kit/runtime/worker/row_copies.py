"""Copies of a step's rows to the host on a CUDA stream of their own, while the device computes the next step.

On the stream of the steps, a copy would stand between a step and the next one. On its own stream three rules keep it
right:

1. A copy waits for an event that is recorded behind its step: its rows are computed.
2. It reads a copy on the device. A step may leave its rows in buffers that the next step writes again, and the next
   step does not wait. (512 rows of 4,096 bfloat16 values take 3 us on an H100, their way to the host 200.)
3. Its target is pinned memory of its own. torch reuses a pinned block only after two things: the tensor has been
   deleted, and the stream that wrote the block has finished the copy. The rows that it reads on the device are kept in
   the same way, because `record_stream` tells torch that a second stream reads them.
"""

from __future__ import annotations

from typing import Any

import torch


class RowCopies:
    """Copies of rows that leave one CUDA device. `cuda` is `torch.cuda`, or a stand-in in tests."""

    def __init__(self, device: torch.device, cuda: Any = torch.cuda) -> None:
        self._device, self._cuda = device, cuda
        self._stream = cuda.Stream(device)

    def start(self, rows: torch.Tensor) -> torch.Tensor:
        """Begin to copy rows of the step that the device was given last; returns them in pinned memory.

        The host may read them after the event of `mark`.
        """
        own = rows.clone(memory_format=torch.contiguous_format)
        computed = self._cuda.Event()
        computed.record(self._cuda.current_stream(self._device))
        with self._cuda.stream(self._stream):
            self._stream.wait_event(computed)
            pinned = torch.empty(own.shape, dtype=own.dtype, pin_memory=True).copy_(own, non_blocking=True)
        own.record_stream(self._stream)
        return pinned

    def mark(self) -> torch.cuda.Event:
        """An event that is reached when all copies so far are there. The steps that they come from are over then."""
        event: torch.cuda.Event = self._cuda.Event()
        event.record(self._stream)
        return event
