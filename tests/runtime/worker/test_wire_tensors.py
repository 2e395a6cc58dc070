"""Tensors of every dtype survive their way over the wire."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from helix_kit.runtime.transport.messages import RunMessage, WorkItem, decode, encode  # noqa: E402
from helix_kit.runtime.worker.wire_tensors import from_wire, to_wire  # noqa: E402


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int32])
def test_a_tensor_survives_the_wire(dtype) -> None:
    rows = torch.arange(12).view(4, 3).to(dtype)
    data, name = to_wire(rows)
    assert data.nbytes == rows.numel() * dtype.itemsize
    assert torch.equal(from_wire(RunMessage([WorkItem(1, 0, 0, 4, False)], name, (4, 3), data)), rows)


@pytest.mark.parametrize("rows", [1, 5000])
def test_a_received_tensor_is_not_copied(rows: int) -> None:
    """In the header and in a frame of its own: the tensor lies in the received bytes."""
    sent = torch.arange(2.0 * rows).view(rows, 2)
    data, dtype = to_wire(sent)
    frames = encode(RunMessage([WorkItem(1, 0, 0, rows, False)], dtype, (rows, 2), data), b"key")
    message = decode([bytes(frame) for frame in frames], b"key")
    received = from_wire(message)
    assert torch.equal(received, sent)
    assert received.data_ptr() == torch.frombuffer(message.tensor, dtype=torch.uint8).data_ptr()
