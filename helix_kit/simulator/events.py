"""The event queue: ordered by (time, number of creation), as a binary heap plus a queue for what happens now.

An event made for the present moment is younger than every event of that moment in the heap, so those come first
and a plain queue holds the rest in order. That spares the heap more than half of all events.
"""

# mypy: allow-untyped-defs, allow-untyped-calls
# Compiled code: numba infers the types.
from __future__ import annotations

import numpy as np
from numba import njit

KIND_SHIFT = 40
ARGUMENT = (1 << KIND_SHIFT) - 1
FIFO_ROOM = 1 << 17
"""Most events of one moment; a power of two."""


@njit(cache=True)
def push(heap_time, heap_uid, heap_code, fifo, clock, time, kind, argument):
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
        if heap_time[parent] < time or (heap_time[parent] == time and heap_uid[parent] < uid):
            break
        heap_time[at] = heap_time[parent]
        heap_uid[at] = heap_uid[parent]
        heap_code[at] = heap_code[parent]
        at = parent
    heap_time[at] = time
    heap_uid[at] = uid
    heap_code[at] = code


@njit(cache=True)
def pop(heap_time, heap_uid, heap_code, fifo, clock):
    """The next event's code; the clock moves to its time. There must be one."""
    count = clock.heap
    if clock.fifo > 0 and (count == 0 or heap_time[0] > clock.now):
        code = fifo[clock.fifo_start & (FIFO_ROOM - 1)]
        clock.fifo_start = (clock.fifo_start + 1) & (FIFO_ROOM - 1)
        clock.fifo -= 1
        return code
    clock.now = heap_time[0]
    code = heap_code[0]
    count -= 1
    clock.heap = count
    time, uid, last = heap_time[count], heap_uid[count], heap_code[count]
    at = 0
    while True:
        child = 2 * at + 1
        if child >= count:
            break
        right = child + 1
        if right < count and (
            heap_time[right] < heap_time[child]
            or (heap_time[right] == heap_time[child] and heap_uid[right] < heap_uid[child])
        ):
            child = right
        if time < heap_time[child] or (time == heap_time[child] and uid < heap_uid[child]):
            break
        heap_time[at] = heap_time[child]
        heap_uid[at] = heap_uid[child]
        heap_code[at] = heap_code[child]
        at = child
    heap_time[at] = time
    heap_uid[at] = uid
    heap_code[at] = last
    return code


@njit(cache=True)
def next_time(heap_time, clock):
    """Time of the next event, infinity when there is none."""
    if clock.fifo > 0:
        return clock.now
    return heap_time[0] if clock.heap > 0 else np.inf
