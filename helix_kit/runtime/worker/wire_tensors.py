"""Tensors to and from raw bytes, for the data plane."""

from __future__ import annotations

import warnings
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
    """Bytes of a tensor (one copy to the host if it is on a GPU) and the name of its dtype."""
    host = to_host(tensor)
    # numpy knows no bfloat16: bytes are taken instead.
    data: Any = host.view(torch.uint8).numpy()
    return memoryview(data).cast("B"), _NAMES[tensor.dtype]


def from_wire(message: RunMessage) -> torch.Tensor:
    """The tensor of a checked message, on the host. It shares the message's memory and is only read."""
    with warnings.catch_warnings():
        # torch warns that the received buffer is read-only; nothing writes into it.
        warnings.simplefilter("ignore", UserWarning)
        return torch.frombuffer(message.tensor, dtype=_TORCH[message.dtype]).view(message.shape)
