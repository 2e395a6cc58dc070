"""State of a simulation under the published rules."""

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
    """Room for the link numbers that are shuffled, or for one number for each endpoint."""


@inlined
def unpacked(plain):
    """The state of a plain tuple from `helix_kit.simulator.state.StateOwner`."""
    (nodes, links, requests, routes, queues, clock, heap, fifo, curves, loads, log, generator, scratch) = plain
    curves, loads, log = Curves(*curves), LinkLoads(*loads), LogArrays(*log)
    return State(nodes, links, requests, routes, queues, clock, heap, fifo, curves, loads, log, generator, scratch)
