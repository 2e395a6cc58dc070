"""States that the search of B7 has met, compiled: a table of hashes of 128 bits each.

Two states lead to the same if the same machines go on, the same are left, and requests get to those that go on in the
same ways. The last is so where these get whatever their speeds allow, up to the target. Only such states are kept.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
# Compiled code: numba infers the types.

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

SIZE = 1 << 20
"""Entries of the table, a power of 2."""
MAX_FULL = 0.75
"""Share of the entries that are filled at most."""
SALT = np.uint64(0x9E3779B97F4A7C15)
LEFT, SHORT = np.uint64(1) << np.uint64(60), np.uint64(2) << np.uint64(60)
"""Marks of what a word is about. Words of machines that go on have none."""


class Memory(NamedTuple):
    """States met."""

    hashes: NDArray[np.uint64]
    """Two of each state, shape (SIZE, 2); 0 where an entry is empty."""
    filled: NDArray[np.int64]
    """Entries filled, shape (1,)."""


def nothing_met() -> Memory:
    """An empty table."""
    return Memory(np.zeros((SIZE, 2), np.uint64), np.zeros(1, np.int64))


@njit(cache=True)
def mixed(word):
    """Another word, of which each bit depends on all bits of the first (the end of splitmix64)."""
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))


@njit(cache=True)
def state_hashes(machines, walk, following):
    """Two hashes of a state: the machines that go on, those left, and whether the next range ends a layer further.

    The last decides whether a range may end there although none starts.
    """
    placed = walk.depth[0]
    layer = walk.starts[placed]
    one, two = np.uint64(0), np.uint64(0)
    for i in range(placed):
        if walk.ends[i] > layer:
            speed = machines.speeds[walk.classes[i], walk.starts[i], walk.ends[i]]
            word = np.uint64(speed) | (np.uint64(walk.ends[i]) << np.uint64(36))
            word |= np.uint64(walk.classes[i]) << np.uint64(50)
            one += mixed(word + SALT)
            two += mixed(word ^ SALT)
    for c in range(len(walk.left)):
        word = LEFT | (np.uint64(c) << np.uint64(50)) | np.uint64(walk.left[c])
        one += mixed(word + SALT)
        two += mixed(word ^ SALT)
    if following == layer + 1:
        one += mixed(SHORT + SALT)
        two += mixed(SHORT ^ SALT)
    return one, two


@njit(cache=True)
def entry_of(memory, one, two):
    """The entry of a state, or the empty one where it would stand."""
    last = np.uint64(len(memory.hashes) - 1)
    entry = one & last
    while memory.hashes[entry, 0] != one or memory.hashes[entry, 1] != two:
        if memory.hashes[entry, 0] == 0 and memory.hashes[entry, 1] == 0:
            break
        entry = (entry + np.uint64(1)) & last
    return entry


@njit(cache=True)
def is_met(memory, one, two):
    """Whether a state was remembered."""
    entry = entry_of(memory, one, two)
    return memory.hashes[entry, 0] == one and memory.hashes[entry, 1] == two


@njit(cache=True)
def remember(memory, one, two):
    """Remember a state, unless the table is full."""
    if memory.filled[0] < MAX_FULL * len(memory.hashes):
        entry = entry_of(memory, one, two)
        memory.hashes[entry, 0], memory.hashes[entry, 1] = one, two
        memory.filled[0] += 1
