"""Tensors to and from the raw bytes of a message."""

from __future__ import annotations

from typing import Any

import torch

from helix_kit.runtime.transport.messages import DtypeName, RunMessage
from helix_kit.runtime.worker.transfer import to_host

_TORCH: dict[DtypeName, torch.dtype] = {
    "int32": torch.int32,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
_NAMES = {dtype: name for name, dtype in _TORCH.items()}


def to_wire(tensor: torch.Tensor) -> tuple[memoryview, DtypeName]:
    """The bytes of a tensor and the name of its dtype. A tensor on a GPU is copied to the host."""
    host = to_host(tensor)
    # numpy has no bfloat16, so the tensor is viewed as bytes.
    data: Any = host.view(torch.uint8).numpy()
    return memoryview(data).cast("B"), _NAMES[tensor.dtype]


def from_wire(message: RunMessage) -> torch.Tensor:
    """The tensor of a checked message, on the host. One with a frame of its own shares the memory of that frame."""
    # torch wants memory that may be written, which a header is not. What a header holds is small.
    data = bytearray(message.tensor) if message.tensor.readonly else message.tensor
    return torch.frombuffer(data, dtype=_TORCH[message.dtype]).view(message.shape)
