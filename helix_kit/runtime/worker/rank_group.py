"""The processes (ranks) that compute the layers of one worker together, and how they reach each other.

Rank 0 decides what is computed and tells the others. Commands go over gloo on the host, where a waiting rank takes no
time of a processor or GPU. Hidden states, and the sums of the layers' results, go over NCCL between GPUs, over gloo
between CPUs. The groups are objects of their own, not torch's global ones: so ranks may also be threads of one process.

The ranks of a worker are on one machine. They meet through a file, and listen on loopback only.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from helix_kit.errors import HelixKitError
from helix_kit.runtime.spec import WorkerSpec

JOIN_TIMEOUT = timedelta(minutes=10)
"""Time for all ranks to start."""
IDLE_TIMEOUT = timedelta(days=365)
"""Time that a rank waits for its next command. A rank that has ended is noticed at once."""
CPU_STEP_TIMEOUT = timedelta(seconds=30)
"""Time that a rank waits for the others in a step. One that is stopped counts as lost after it."""
GPU_STEP_TIMEOUT = timedelta(minutes=15)
"""The same on GPUs, where a rank may have to compile kernels meanwhile."""
HELD_UP_S = 1.0
"""Time of a wait from which rank 0 sends no heartbeats: the coordinator then looks at the ranks' processes."""
FIRST_BYTES = 4096
"""Bytes of a command that are sent at once, its length among them."""


class RankLostError(HelixKitError):
    """Another rank of the worker has ended, or does not answer."""


class RankGroup:
    """One rank, joined to the others of its worker.

    Parameters
    ----------
    spec
        The worker: its `ranks`, which of them this one is, and where they meet.
    """

    def __init__(self, spec: WorkerSpec) -> None:
        assert spec.rendezvous is not None and len(spec.ranks) > 1
        self.rank, self.size = spec.rank, len(spec.ranks)
        self.device = torch.device(spec.device)
        self._waits_since_s: float | None = None
        self._step_timeout = GPU_STEP_TIMEOUT if self.device.type == "cuda" else CPU_STEP_TIMEOUT
        store = dist.FileStore(spec.rendezvous, self.size)
        store.set_timeout(JOIN_TIMEOUT)
        self._control = _gloo(dist.PrefixStore("control", store), self.rank, self.size, JOIN_TIMEOUT)
        results = dist.PrefixStore("results", store)
        self._results: Any
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
            options = dist.ProcessGroupNCCL.Options()
            options._timeout = self._step_timeout
            self._results = dist.ProcessGroupNCCL(results, self.rank, self.size, options)
        else:
            self._results = _gloo(results, self.rank, self.size, self._step_timeout)

    def add_up(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum of `tensor` over the ranks; `tensor` is written over."""
        if tensor.device.type == "cuda" or tensor.dtype == torch.float32:
            tensor = tensor.contiguous()
            self._wait(lambda: self._results.allreduce([tensor]))
            return tensor
        # On a CPU half precision is added up in float32.
        wide = tensor.float()
        self._wait(lambda: self._results.allreduce([wide]))
        return tensor.copy_(wide)

    def share_rows(self, rows: torch.Tensor) -> torch.Tensor:
        """The rows of rank 0, on every rank; the others give a tensor to write them to."""
        rows = rows.contiguous()
        # gloo sends bytes: it knows no bfloat16.
        sent = rows if rows.device.type == "cuda" else rows.view(torch.uint8)
        self._broadcast(self._results, sent, self._step_timeout)
        return rows

    def tell(self, command: bytes) -> None:
        """Rank 0: send a command to the others."""
        first = torch.zeros(FIRST_BYTES, dtype=torch.uint8)
        whole = torch.frombuffer(bytearray(len(command).to_bytes(8, "little") + command), dtype=torch.uint8)
        first[: min(FIRST_BYTES, len(whole))] = whole[:FIRST_BYTES]
        self._broadcast(self._control, first, self._step_timeout)
        if len(whole) > FIRST_BYTES:
            self._broadcast(self._control, whole[FIRST_BYTES:].contiguous(), self._step_timeout)

    def hear(self) -> bytes:
        """The others: wait for the next command."""
        first = torch.zeros(FIRST_BYTES, dtype=torch.uint8)
        self._broadcast(self._control, first, IDLE_TIMEOUT)
        data = first.numpy().tobytes()
        length = int.from_bytes(data[:8], "little")
        missing = length + 8 - FIRST_BYTES
        if missing > 0:
            rest = torch.zeros(missing, dtype=torch.uint8)
            self._broadcast(self._control, rest, self._step_timeout)
            data += rest.numpy().tobytes()
        return data[8 : 8 + length]

    def gather(self, number: int) -> list[int]:
        """The numbers of all ranks, in their order, on every rank."""
        numbers = torch.zeros(self.size, dtype=torch.long)
        numbers[self.rank] = number
        options = dist.AllreduceOptions()
        options.timeout = IDLE_TIMEOUT  # a rank may take long to load its weights
        self._wait(lambda: self._control.allreduce([numbers], options))
        return numbers.tolist()

    def _broadcast(self, group: Any, tensor: torch.Tensor, timeout: timedelta) -> None:
        """Bring what rank 0 has in `tensor` to all ranks."""
        options = dist.BroadcastOptions()
        options.rootRank, options.timeout = 0, timeout
        self._wait(lambda: group.broadcast([tensor], options))

    @property
    def is_held_up(self) -> bool:
        """Whether this rank has been waiting for another one for longer than `HELD_UP_S`."""
        since_s = self._waits_since_s
        return since_s is not None and time.monotonic() - since_s > HELD_UP_S

    def _wait(self, start: Callable[[], Any]) -> None:
        self._waits_since_s = time.monotonic()
        try:
            start().wait()
            self._waits_since_s = None
        except RuntimeError as error:
            raise RankLostError("another rank of the worker has ended, or does not answer") from error


def _gloo(store: dist.Store, rank: int, size: int, timeout: timedelta) -> Any:
    kind: Any = dist.ProcessGroupGloo
    options = kind._Options()
    options._devices = [kind.create_device(hostname="127.0.0.1")]
    options._timeout = timeout
    return kind(store, rank, size, options)
