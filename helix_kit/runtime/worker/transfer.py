"""Copies between the host and a device. Those to a GPU go through pinned memory, and the host does not wait for them.

torch keeps a pinned block until the stream has read it, however early its tensor is dropped. Copies to the host must be
waited for before they are read; `to_host` does.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch


def to_device(host: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A host tensor on `device`; the tensor itself where that is the host."""
    if device.type != "cuda":
        return host.to(device)
    return host.pin_memory().to(device, non_blocking=True)


def joined_on_device(parts: Sequence[torch.Tensor], device: torch.device) -> torch.Tensor:
    """Host tensors end to end on `device`: gathered in one pinned block, which is one copy to the GPU."""
    if len(parts) == 1:
        return to_device(parts[0], device)
    if device.type != "cuda":
        return torch.cat(list(parts)).to(device)
    shape = (sum(len(part) for part in parts), *parts[0].shape[1:])
    pinned = torch.empty(shape, dtype=parts[0].dtype, pin_memory=True)
    torch.cat(list(parts), out=pinned)
    return pinned.to(device, non_blocking=True)


def to_host(tensor: torch.Tensor) -> torch.Tensor:
    """A contiguous copy on the host (the tensor itself where it is one): one pinned copy, waited for."""
    there = tensor.detach().contiguous()
    if there.device.type != "cuda":
        return there
    pinned = torch.empty(there.shape, dtype=there.dtype, pin_memory=True)
    pinned.copy_(there, non_blocking=True)
    torch.cuda.current_stream(there.device).synchronize()
    return pinned
