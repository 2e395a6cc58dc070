"""Copies between the host and a device.

Copies to a GPU go through pinned memory, and the host does not wait for them. torch keeps a pinned block until the GPU
has read it, even if its tensor is dropped earlier. Copies from a GPU must be complete before they are read, so
`to_host` waits for them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch


def to_device(host: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A host tensor on `device`; the tensor itself if the device is the CPU."""
    if device.type != "cuda":
        return host.to(device)
    return host.pin_memory().to(device, non_blocking=True)


def joined_on_device(tensors: Sequence[torch.Tensor], device: torch.device) -> torch.Tensor:
    """Host tensors joined along their first dimension, on `device`. For a GPU they are joined in pinned memory."""
    if len(tensors) == 1:
        return to_device(tensors[0], device)
    if device.type != "cuda":
        return torch.cat(list(tensors)).to(device)
    shape = (sum(len(tensor) for tensor in tensors), *tensors[0].shape[1:])
    pinned = torch.empty(shape, dtype=tensors[0].dtype, pin_memory=True)
    torch.cat(list(tensors), out=pinned)
    return pinned.to(device, non_blocking=True)


def start_to_host(tensor: torch.Tensor) -> torch.Tensor:
    """As `to_host`, but on a GPU the copy is only begun: it is complete when its stream has come so far."""
    contiguous = tensor.detach().contiguous()
    if contiguous.device.type != "cuda":
        return contiguous
    pinned = torch.empty(contiguous.shape, dtype=contiguous.dtype, pin_memory=True)
    return pinned.copy_(contiguous, non_blocking=True)


def mark(device: torch.device) -> torch.cuda.Event | None:
    """An event that is reached when the device has done everything that it was given so far; None on a CPU."""
    if device.type != "cuda":
        return None
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(device))
    return event


def to_host(tensor: torch.Tensor) -> torch.Tensor:
    """A contiguous tensor on the host; the tensor itself if it is one already."""
    host = start_to_host(tensor)
    if tensor.device.type == "cuda":
        torch.cuda.current_stream(tensor.device).synchronize()
    return host
