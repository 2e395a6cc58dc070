"""Rows between host and device: joined without loss, and no copy where none is needed. (Pinned copies: test_gpu.py.)"""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from helix_kit.runtime.worker.transfer import joined_on_device, to_device, to_host  # noqa: E402

CPU = torch.device("cpu")


def test_joining_keeps_order_and_shape() -> None:
    parts = [torch.arange(6.0).view(3, 2), torch.arange(2.0).view(1, 2)]
    assert torch.equal(joined_on_device(parts, CPU), torch.tensor([[0.0, 1], [2, 3], [4, 5], [0, 1]]))
    assert torch.equal(joined_on_device([torch.tensor([7, 8]), torch.tensor([9])], CPU), torch.tensor([7, 8, 9]))
    assert joined_on_device(parts, torch.device("meta")).shape == (4, 2)


def test_nothing_is_copied_on_the_host() -> None:
    rows = torch.randn(4, 3)
    assert to_device(rows, CPU).data_ptr() == to_host(rows).data_ptr() == rows.data_ptr()
    assert joined_on_device([rows], CPU).data_ptr() == rows.data_ptr()
    turned = rows.t()
    assert torch.equal(to_host(turned), turned) and to_host(turned).is_contiguous()
