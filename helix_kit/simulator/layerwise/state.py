"""State of a simulation under the published rules."""

# mypy: allow-untyped-defs, allow-untyped-calls
# `unpacked` is compiled code: numba infers the types.
from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from helix_kit.simulator.state import Curves, LinkLoads, LogArrays


class State(NamedTuple):
    """Everything that compiled code reads and writes; records are described in `helix_kit.simulator.state`."""

    nodes: np.ndarray
    links: np.ndarray
    requests: np.ndarray
    routes: np.ndarray
    """Link numbers of each request's path, shape (requests, most hops + 1)."""
    queues: np.ndarray
    """One queue of requests for each layer of each node."""
    clock: np.void
    heap: np.ndarray
    fifo: np.ndarray
    curves: Curves
    loads: LinkLoads
    log: LogArrays
    generator: np.ndarray
    """State of the policy's random generator, see `helix_kit.simulator.mersenne`."""
    scratch: np.ndarray
    """Room for the link numbers that are shuffled."""


class Hot(NamedTuple):
    """The part of a `State` that every rule reads or writes.

    numba counts references to all arrays of a tuple wherever the tuple is passed. One tuple of all arrays, the rarely
    used ones included, made simulations 1.7 times slower: so curves, loads and the log are passed beside it.
    """

    nodes: np.ndarray
    links: np.ndarray
    requests: np.ndarray
    routes: np.ndarray
    queues: np.ndarray
    clock: np.void
    heap: np.ndarray
    fifo: np.ndarray
    generator: np.ndarray
    scratch: np.ndarray


@njit(cache=True, inline="always")
def unpacked(plain):
    """(hot state, curves, loads, log) of a plain tuple from `helix_kit.simulator.state.packed`."""
    (nodes, links, requests, routes, queues, clock, heap, fifo, curves, loads, log, generator, scratch) = plain
    hot = Hot(nodes, links, requests, routes, queues, clock, heap, fifo, generator, scratch)
    return hot, Curves(*curves), LinkLoads(*loads), LogArrays(*log)
