"""State of a simulation under our runtime's rules."""

# mypy: allow-untyped-defs, allow-untyped-calls
# `unpacked` is compiled code: numba infers the types.
from __future__ import annotations

from typing import NamedTuple

import numpy as np

from helix_kit.simulator.compiled import inlined
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
    prompted: np.ndarray
    """Requests whose first token since their start came in the last event; the clock's `prompted` says how many."""


@inlined
def unpacked(plain):
    """The state of a plain tuple from `helix_kit.simulator.state.StateOwner`."""
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
        prompted,
    ) = plain
    return State(
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
        Curves(*curves),
        LinkLoads(*loads),
        hop_averages,
        LogArrays(*log),
        finished,
        continued,
        prompted,
    )
