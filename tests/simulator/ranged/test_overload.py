"""A queue that grows until the last request arrives is said to be an overload; one that only varies is not."""

from __future__ import annotations

from helix_kit.simulator.ranged.overload import overload_notes


def samples(*waiting: int) -> list[tuple[float, int]]:
    return [(10.0 * i, count) for i, count in enumerate(waiting)]


def test_a_growing_queue_is_told_with_its_lengths() -> None:
    assert overload_notes(samples(0, 10, 20, 40, 60), 40.0) == [
        "overload: 60 requests wait at 40 s, 20 did halfway; it grows"
    ]


def test_what_is_no_overload() -> None:
    assert overload_notes(samples(0, 1, 2, 4, 10), 40.0) == []  # ten wait
    assert overload_notes(samples(0, 50, 50, 55, 60), 40.0) == []  # hardly longer than halfway
    assert overload_notes(samples(0, 10, 60), 20.0) == []  # too few samples
    assert overload_notes(samples(5, 5, 5, 5, 90, 90), 25.0) == []  # it grew after the last request had arrived
