"""The event queue: ordered by (time, number of creation), as a binary heap plus a queue for what happens now.

An event made for the present moment is younger than every event of that moment in the heap, so those come first
and a plain queue holds the rest in order. That spares the heap more than half of all events.
"""

# mypy: allow-untyped-defs, allow-untyped-calls
# Compiled code: numba infers the types.
from __future__ import annotations

import numpy as np

from helix_kit.simulator.compiled import inlined

KIND_SHIFT = 40
ARGUMENT = (1 << KIND_SHIFT) - 1
EVENT = np.dtype([("time", "f8"), ("uid", "i8"), ("code", "i8")])
FIFO_ROOM = 1 << 17
"""Most events of one moment; a power of two."""


@inlined
def move(place, time, uid, code):
    """Write an event into a place of the heap."""
    place.time = time
    place.uid = uid
    place.code = code


@inlined
def push(heap, fifo, clock, time, kind, argument):
    """Add an event (times in s; `kind` and `argument` whole numbers)."""
    code = (kind << KIND_SHIFT) | argument
    uid = clock.uid
    clock.uid = uid + 1
    if time <= clock.now:
        if clock.fifo >= FIFO_ROOM:
            raise RuntimeError("too many events in one moment")
        fifo[(clock.fifo_start + clock.fifo) & (FIFO_ROOM - 1)] = code
        clock.fifo += 1
        return
    at = clock.heap
    clock.heap = at + 1
    while at > 0:
        parent = (at - 1) >> 1
        above = heap[parent]
        if above.time < time or (above.time == time and above.uid < uid):
            break
        move(heap[at], above.time, above.uid, above.code)
        at = parent
    move(heap[at], time, uid, code)


@inlined
def pop(heap, fifo, clock):
    """The next event's code; the clock moves to its time. There must be one."""
    count = clock.heap
    if clock.fifo > 0 and (count == 0 or heap[0].time > clock.now):
        code = fifo[clock.fifo_start & (FIFO_ROOM - 1)]
        clock.fifo_start = (clock.fifo_start + 1) & (FIFO_ROOM - 1)
        clock.fifo -= 1
        return code
    clock.now = heap[0].time
    code = heap[0].code
    count -= 1
    clock.heap = count
    last = heap[count]
    time, uid = last.time, last.uid
    at = 0
    while True:
        child = 2 * at + 1
        if child >= count:
            break
        below, right = heap[child], heap[child + 1]
        if child + 1 < count and (right.time < below.time or (right.time == below.time and right.uid < below.uid)):
            child += 1
            below = right
        if time < below.time or (time == below.time and uid < below.uid):
            break
        move(heap[at], below.time, below.uid, below.code)
        at = child
    move(heap[at], time, uid, last.code)
    return code


@inlined
def next_time(heap, clock):
    """Time of the next event, infinity when there is none."""
    if clock.fifo > 0:
        return clock.now
    return heap[0].time if clock.heap > 0 else np.inf
