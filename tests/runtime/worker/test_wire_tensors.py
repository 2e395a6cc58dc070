"""Tensors of every dtype survive their way over the wire."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from helix_kit.runtime.transport.messages import RunMessage, WorkItem  # noqa: E402
from helix_kit.runtime.transport.wire import decode, encode  # noqa: E402
from helix_kit.runtime.worker.wire_tensors import from_wire, to_wire  # noqa: E402


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int32])
def test_a_tensor_survives_the_wire(dtype) -> None:
    rows = torch.arange(12).view(4, 3).to(dtype)
    data, name = to_wire(rows)
    assert data.nbytes == rows.numel() * dtype.itemsize
    assert torch.equal(from_wire(RunMessage([WorkItem(1, 0, 0, 4, False)], name, (4, 3), data)), rows)


@pytest.mark.parametrize(("rows", "is_copied"), [(1, True), (5000, False)])
@pytest.mark.filterwarnings("error")
def test_a_received_tensor_is_copied_only_out_of_a_header(rows: int, is_copied: bool) -> None:
    """A header cannot be written, and torch would warn of that. A frame that zmq has received can."""
    sent = torch.arange(2.0 * rows).view(rows, 2)
    data, dtype = to_wire(sent)
    header, *tensor = encode(RunMessage([WorkItem(1, 0, 0, rows, False)], dtype, (rows, 2), data), b"key")
    message = decode([header, *map(bytearray, tensor)], b"key")
    received = from_wire(message)
    assert torch.equal(received, sent)
    own = np.frombuffer(message.tensor, np.uint8).__array_interface__["data"][0]
    assert (received.data_ptr() != own) == is_copied
    received[0, 0] = 7.0  # what a layer writes in place stays in its own memory
    assert from_wire(message)[0, 0] == (0.0 if is_copied else 7.0)
