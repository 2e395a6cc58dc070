"""The simulation's state in flat record arrays: compiled code runs over them and Python can look at them.

Endpoints are numbered: nodes 0..n-1 in plan order, then the coordinator's sending side n, then its receiving side
n + 1. Lists (a layer's queue, a link's queue, a batch) are chains through the `next` fields, which are -1 at the end.
Times are in s, rates in bytes/s, and sizes in bytes, unless a field's name says otherwise.
"""

# mypy: allow-untyped-defs, allow-untyped-calls
# The endpoint functions are compiled code: numba infers the types.
from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

import numpy as np

from helix_kit.simulator.compiled import inlined

NONE = -1
BUSY, BLOCKED, STARVED = 0, 1, 2
SENDING_SIDE, RECEIVING_SIDE = -2, -1
"""Places of the coordinator's two endpoints, counted from the end of the node records."""


@inlined
def sending_side(nodes):
    """Number of the coordinator's sending endpoint."""
    return len(nodes) + SENDING_SIDE


@inlined
def receiving_side(nodes):
    """Number of the coordinator's receiving endpoint."""
    return len(nodes) + RECEIVING_SIDE


class Curves(NamedTuple):
    """Step times of all kinds of node, their points end to end."""

    x: np.ndarray
    """Tokens (prefill) or requests (decode)."""
    y: np.ndarray
    """Seconds for one layer."""
    first: np.ndarray
    """First point by (kind, phase), phase 0 for prefill and 1 for decode; shape (kinds, 2)."""
    points: np.ndarray
    """Number of points by (kind, phase); shape (kinds, 2)."""


class LinkLoads(NamedTuple):
    """The policy's count of decode tokens, kept in compiled code; all empty where the policy keeps none."""

    load: np.ndarray
    """Tokens / flow of each of the policy's links."""
    flow: np.ndarray
    """Tokens/s of each of the policy's links."""
    of_link: np.ndarray
    """Simulated link -> the policy's link, -1 where the policy does not know it."""


class LogArrays(NamedTuple):
    """What compiled code writes down: every token that came back, and every batch where batches are recorded."""

    token_request: np.ndarray
    """Request that the token belongs to; the clock's `tokens` says how many entries are filled."""
    token_time: np.ndarray
    batches: np.ndarray
    """`BATCH` records; the clock's `batches` says how many are filled."""


NODE = np.dtype(
    [
        # Fixed: layers held, curves, batch limits, network card.
        ("start", "i8"),
        ("layers", "i8"),
        ("first_queue", "i8"),
        ("curve", "i8"),
        ("prefill_max", "i8"),
        ("prefill_tokens_max", "i8"),
        ("decode_max", "i8"),
        ("context_max", "i8"),
        ("kv_capacity", "i8"),
        ("first_link", "i8"),
        ("links", "i8"),
        ("first_into", "i8"),
        ("intos", "i8"),
        ("nic", "f8"),
        # What runs now.
        ("alive", "i8"),
        ("slowdown", "f8"),
        ("running", "i8"),
        ("step_id", "i8"),
        ("layer", "i8"),
        ("batch_head", "i8"),
        ("batch_tail", "i8"),
        ("batch_prefill", "i8"),
        ("batch_decodes", "i8"),
        ("batch_start", "f8"),
        ("unread_tokens", "i8"),
        # Requests that wait to leave, in order of arrival; `new_head` is the first that the policy has not seen yet.
        ("out_head", "i8"),
        ("out_tail", "i8"),
        ("out_count", "i8"),
        ("out_prompts", "i8"),
        ("new_head", "i8"),
        ("send_free", "f8"),
        ("receive_free", "f8"),
        # Statistics.
        ("kv_used", "i8"),
        ("kv_peak", "i8"),
        ("state", "i8"),
        ("since", "f8"),
        ("busy_s", "f8"),
        ("blocked_s", "f8"),
        ("steps", "i8"),
        ("prefill_tokens", "i8"),
        ("decode_tokens", "i8"),
    ]
)
LINK = np.dtype(
    [
        ("source", "i8"),
        ("target", "i8"),
        ("bandwidth", "f8"),
        ("latency", "f8"),
        ("bytes_per_token", "f8"),
        ("granted", "f8"),
        ("sending", "i8"),
        ("free", "f8"),
        ("head", "i8"),
        ("tail", "i8"),
        ("priority", "f8"),
        ("average", "f8"),
        ("taken", "i8"),
        ("draft_head", "i8"),
        ("draft_tail", "i8"),
        ("draft_next", "i8"),
        ("since", "f8"),
        ("busy", "f8"),
        ("bytes", "f8"),
        ("messages", "i8"),
    ]
)
REQUEST = np.dtype(
    [
        ("input", "i8"),
        ("output", "i8"),
        ("decoding", "i8"),
        ("done", "i8"),
        ("sampled", "i8"),
        ("resumed", "i8"),
        ("layer", "i8"),
        ("hop", "i8"),
        ("hops", "i8"),
        ("next", "i8"),
        ("out_next", "i8"),
        ("out_previous", "i8"),
        ("order", "i8"),
        ("epoch", "i8"),
        ("step_id", "i8"),
        ("send_link", "i8"),
        ("send_rate", "f8"),
        ("send_start", "f8"),
    ]
)
QUEUE = np.dtype([("head", "i8"), ("tail", "i8"), ("count", "i8")])
CLOCK = np.dtype(
    [
        ("now", "f8"),
        ("uid", "i8"),
        ("heap", "i8"),
        ("fifo_start", "i8"),
        ("fifo", "i8"),
        ("order", "i8"),
        ("tokens", "i8"),
        ("batches", "i8"),
        ("events", "i8"),
        ("sink_head", "i8"),
        ("sink_tail", "i8"),
        ("gathering", "i8"),
        ("window_start", "f8"),
        ("window_end", "f8"),
        ("copy_bytes", "f8"),
        ("policy", "i8"),
        ("record_batches", "i8"),
        ("step_tokens", "i8"),
        ("goes_on", "i8"),
        ("free_chunk", "i8"),
        ("free_chunks", "i8"),
        ("free_message", "i8"),
        ("free_messages", "i8"),
        ("stalled", "i8"),
        ("drafts", "i8"),
        ("last_draft", "i8"),
        ("finished", "i8"),
        ("continued", "i8"),
        ("ask_tokens", "i8"),
        ("ask_prompts", "i8"),
        ("prompted", "i8"),
        ("smoothing", "f8"),
    ]
)
"""Time, counters and settings of a run, one record.

`copy_bytes` are copied between host and GPU for each token that a node has received since its last first-layer step.
`goes_on` is `BatchingOptions.only_stage_goes_on`. `ask_tokens` says that the policy hears of each decode token,
`ask_prompts` that the prefix cache hears of each prompt that has been computed;
`smoothing` is the weight of a new hop time."""
CHUNK = np.dtype(
    [
        ("request", "i8"),
        ("epoch", "i8"),
        ("tokens", "i8"),
        ("decode", "i8"),
        ("last", "i8"),
        ("hop", "i8"),
        ("layer", "i8"),
        ("sent_at", "f8"),
        ("next", "i8"),
    ]
)
"""A prefill chunk, or one decode token as a chunk of one, on its way (range execution)."""
MESSAGE = np.dtype([("head", "i8"), ("link", "i8"), ("size", "f8"), ("next", "i8")])
"""Chunks that travel over a link together (range execution)."""
BATCH = np.dtype([("node", "i8"), ("start", "f8"), ("end", "f8"), ("prefill", "i8"), ("decodes", "i8")])


AnyState = TypeVar("AnyState", bound=NamedTuple)


class StateOwner(Generic[AnyState]):
    """Base of the drivers of `layerwise` and `ranged`: holds the state, also as a plain tuple for compiled code.

    numba recognises a plain tuple quickly. A named tuple is examined anew at every call, which took a third of a
    simulation's time. Compiled code makes the named tuple again from the plain one.
    """

    _state: AnyState
    _packed: tuple

    @property
    def state(self) -> AnyState:
        """Everything that compiled code reads and writes."""
        return self._state

    @state.setter
    def state(self, state: AnyState) -> None:
        self._state = state
        self._packed = tuple(tuple(entry) if isinstance(entry, tuple) else entry for entry in state)

    @property
    def packed(self) -> tuple:
        """The state as a plain tuple."""
        return self._packed


def filled(dtype: np.dtype, count: int, links: tuple[str, ...] = ()) -> np.ndarray:
    """Zeroed records whose chain fields `links` say 'none'."""
    records = np.zeros(count, dtype=dtype)
    for name in links:
        records[name] = NONE
    return records


def pool(dtype: np.dtype, count: int, first: int = 0) -> np.ndarray:
    """Free records, each chained to the next; `first` is the number of the first among all."""
    records = np.zeros(count, dtype=dtype)
    records["next"] = np.arange(first + 1, first + count + 1)
    records["next"][-1] = NONE
    return records
