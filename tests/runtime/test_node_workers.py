"""Layers and KV pages divided over the devices of a node."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from helix_kit.flow import Stage  # noqa: E402
from helix_kit.runtime.node_workers import divide_node, pages_per_worker, to_workers  # noqa: E402


@given(st.integers(0, 9), st.integers(1, 40), st.integers(1, 9), st.data())
def test_parts_cover_the_range_evenly(start: int, layers: int, devices: int, data: st.DataObject) -> None:
    parts = divide_node("n", start, start + layers, devices)
    assert [layer for part in parts for layer in range(part.start, part.end)] == [*range(start, start + layers)]
    sizes = [part.end - part.start for part in parts]
    assert len(parts) == min(devices, layers) and max(sizes) - min(sizes) <= 1
    assert len({part.name for part in parts}) == len(parts)
    first = data.draw(st.integers(start, start + layers - 1))
    end = data.draw(st.integers(first + 1, start + layers))
    stages = to_workers((Stage("n", first, end),), {"n": parts})
    assert [layer for stage in stages for layer in range(stage.start, stage.end)] == [*range(first, end)]
    held = {part.name: (part.start, part.end) for part in parts}
    assert all(held[s.node][0] <= s.start < s.end <= held[s.node][1] for s in stages)


@given(st.integers(1, 20), st.integers(2, 8), st.integers(50, 5000), st.floats(0, 30))
def test_no_device_holds_more_than_its_memory(layers: int, devices: int, pages: int, per_layer: float) -> None:
    parts = divide_node("n", 0, layers, devices)
    found = pages_per_worker(parts, pages, pages_per_layer=per_layer, devices=devices)
    memory = (pages + layers * per_layer) / devices
    for part, count in zip(parts, found, strict=True):
        own = part.end - part.start
        assert count == 1 or count + own * per_layer <= memory + 1e-6
        assert count <= max(1, pages * own / layers)
    if layers % devices == 0:  # even parts lose nothing but the fractions
        assert pages - sum(found) <= devices or min(found) == 1


def test_pages_worked_out_by_hand() -> None:
    """Five layers of ten pages' memory and 100 pages are 150 pages' memory: 75 for each of two devices."""
    parts = divide_node("n", 0, 5, 2)
    assert [part.end - part.start for part in parts] == [2, 3]
    # Two layers leave 55 and may use 2/5 of 100; three leave 45, of the 60 that they could use.
    assert pages_per_worker(parts, 100, pages_per_layer=10.0, devices=2) == [40, 45]
    assert pages_per_worker(parts, 100, pages_per_layer=None, devices=2) == [40, 60]  # a CPU's memory is not divided
