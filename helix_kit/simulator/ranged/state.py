"""State of a simulation under our runtime's rules."""

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
    into: np.ndarray
    """Link numbers ordered by receiver, see `helix_kit.simulator.setup.Setup`."""
    chunks: np.ndarray
    messages: np.ndarray
    inboxes: np.ndarray
    """Queues of chunks in front of each node: its decodes at 2 i, its prefill chunks at 2 i + 1."""
    clock: np.void
    heap: np.ndarray
    fifo: np.ndarray
    entering: np.ndarray
    """Scratch: (prefill, decode) tokens of a batch that enter at each layer, shape (layers + 1, 2)."""
    curves: Curves
    loads: LinkLoads
    hop_averages: np.ndarray
    """Swarm's moving average of each of its links in s; empty for other policies."""
    log: LogArrays
    finished: np.ndarray
    """Requests that finished in the last event; the clock's `finished` says how many."""
    continued: np.ndarray
    """Requests whose next decode step set out in the last event; the clock's `continued` says how many."""


class Hot(NamedTuple):
    """The part of a `State` that every rule reads or writes.

    numba counts references to all arrays of a tuple wherever the tuple is passed. One tuple of all arrays, the rarely
    used ones included, made simulations 1.7 times slower: so curves, loads and the log are passed beside it.
    """

    nodes: np.ndarray
    links: np.ndarray
    requests: np.ndarray
    routes: np.ndarray
    into: np.ndarray
    chunks: np.ndarray
    messages: np.ndarray
    inboxes: np.ndarray
    clock: np.void
    heap: np.ndarray
    fifo: np.ndarray
    entering: np.ndarray


class Returned(NamedTuple):
    """Requests whose tokens came back in the last event."""

    finished: np.ndarray
    continued: np.ndarray


@njit(cache=True, inline="always")
def unpacked(plain):
    """(hot state, curves, loads, log, hop averages, returned requests) of a plain tuple.

    `helix_kit.simulator.state.packed` makes the plain tuple.
    """
    (
        nodes,
        links,
        requests,
        routes,
        into,
        chunks,
        messages,
        inboxes,
        clock,
        heap,
        fifo,
        entering,
        curves,
        loads,
        hop_averages,
        log,
        finished,
        continued,
    ) = plain
    hot = Hot(nodes, links, requests, routes, into, chunks, messages, inboxes, clock, heap, fifo, entering)
    return hot, Curves(*curves), LinkLoads(*loads), LogArrays(*log), hop_averages, Returned(finished, continued)
