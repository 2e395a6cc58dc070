"""How the rules are compiled: without reference counts, and so without arrays of their own."""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
import pytest

from helix_kit.simulator.compiled import OPTIONS, compiled


class Pair(NamedTuple):
    first: np.ndarray
    second: np.ndarray


def total(first, second):
    pair = Pair(first, second)
    both = 0.0
    for one in pair:
        for value in one:
            both += value
    return both


def test_compiled_code_counts_no_references():
    counts = {}
    for options in (OPTIONS, {**OPTIONS, "_nrt": True}):
        function = numba.njit(**{**options, "cache": False})(total)  # code from the cache has no text to look at
        assert function(np.arange(3.0), np.arange(4.0)) == 3 + 6
        (text,) = function.inspect_llvm().values()
        counts[options["_nrt"]] = text.count("NRT_incref") + text.count("NRT_decref")
    assert counts[False] == 0
    assert counts[True] > 0


def test_compiled_code_may_not_make_an_array():
    @compiled
    def make(count):
        return np.zeros(count)

    with pytest.raises(numba.core.errors.TypingError, match="array"):
        make(3)
