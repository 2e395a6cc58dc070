"""The event queue: events come by time, and of one moment in the order in which they were made."""

from __future__ import annotations

import random

import numpy as np
import pytest

from helix_kit.simulator import events
from helix_kit.simulator.setup import new_clock, new_heap


@pytest.fixture
def queue():
    """Push and pop on an empty queue, with its clock."""
    clock = new_clock()
    heap, fifo = new_heap(500)

    class Queue:
        now = property(lambda self: clock[0]["now"])
        next_time = property(lambda self: events.next_time(heap, clock[0]))

        def push(self, time, kind, argument):
            events.push(heap, fifo, clock[0], time, kind, argument)

        def pop(self):
            code = events.pop(heap, fifo, clock[0])
            return code >> events.KIND_SHIFT, code & events.ARGUMENT

    return Queue()


def test_events_come_by_time_and_then_by_age(queue):
    """Times on a coarse grid, so that many are equal; a third of the events is made while others are taken."""
    draw = random.Random(4)
    waiting, taken = [], []
    for number in range(300):
        time = queue.now + draw.choice([0.0, 0.0, 0.25, 0.5, 1.0])
        queue.push(time, number % 7, number)
        waiting.append((time, number))
        if number % 3 == 2:
            assert queue.next_time == min(waiting)[0]
            expected = min(waiting)
            assert queue.pop() == (expected[1] % 7, expected[1])
            assert queue.now == expected[0]
            waiting.remove(expected)
            taken.append(expected)
    while waiting:
        expected = min(waiting)
        assert queue.pop() == (expected[1] % 7, expected[1])
        waiting.remove(expected)
        taken.append(expected)
    assert len(taken) == 300
    assert queue.next_time == np.inf


def test_too_many_events_of_one_moment_are_an_error(queue, monkeypatch):
    for number in range(events.FIFO_ROOM):
        queue.push(0.0, 0, number)
    with pytest.raises(RuntimeError, match="too many events"):
        queue.push(0.0, 0, 0)
