"""Compiled random numbers are Python's own."""

from __future__ import annotations

import random

import numpy as np

from helix_kit.simulator import mersenne


def test_numbers_below_a_limit_are_those_of_randrange():
    python = random.Random(11)
    state = mersenne.state_of(python)
    limits = [1, 2, 3, 7, 100, 2**20, 10**9] * 150  # more than 624 words, so that the state is renewed
    assert [mersenne.below(state, limit) for limit in limits] == [python.randrange(limit) for limit in limits]


def test_a_shuffle_is_that_of_python_and_leaves_the_rest_alone():
    python = random.Random(5)
    state = mersenne.state_of(python)
    for count in (0, 1, 2, 9, 40):
        values, expected = np.arange(50), list(range(count))
        mersenne.shuffle(state, values, count)
        python.shuffle(expected)
        assert values.tolist() == [*expected, *range(count, 50)]
