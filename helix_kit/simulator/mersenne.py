"""Python's own random numbers in compiled code, from the state of a `random.Random`.

The published random and shortest-queue schedulers share Python's generator with the sampler of lengths; to repeat
their choices the same numbers must be drawn in the same order (Matsumoto and Nishimura's MT19937).
"""

# mypy: allow-untyped-defs, allow-untyped-calls
# Compiled code: numba infers the types.
from __future__ import annotations

import random

import numpy as np

from helix_kit.simulator.compiled import compiled

SIZE = 624


def state_of(generator: random.Random) -> np.ndarray:
    """The generator's state, shape (625,): words, then the position of the next."""
    return np.array(generator.getstate()[1], dtype=np.int64)


@compiled
def word(state):
    """The next 32 random bits."""
    if state[SIZE] >= SIZE:
        for i in range(SIZE):
            mixed = (state[i] & 0x80000000) | (state[(i + 1) % SIZE] & 0x7FFFFFFF)
            turned = state[(i + 397) % SIZE] ^ (mixed >> 1)
            if mixed & 1:
                turned ^= 0x9908B0DF
            state[i] = turned
        state[SIZE] = 0
    y = state[state[SIZE]]
    state[SIZE] += 1
    y ^= y >> 11
    y ^= (y << 7) & 0x9D2C5680
    y ^= (y << 15) & 0xEFC60000
    y ^= y >> 18
    return y & 0xFFFFFFFF


@compiled
def below(state, limit):
    """A whole number in [0, limit), as `Random.randrange` draws it."""
    bits = 0
    while (limit >> bits) > 0:
        bits += 1
    drawn = word(state) >> (32 - bits)
    while drawn >= limit:
        drawn = word(state) >> (32 - bits)
    return drawn


@compiled
def shuffle(state, values, count):
    """Shuffle the first `count` values in place, as `Random.shuffle` does."""
    for i in range(count - 1, 0, -1):
        j = below(state, i + 1)
        values[i], values[j] = values[j], values[i]
