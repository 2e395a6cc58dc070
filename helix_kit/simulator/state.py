"""The simulation's state in flat record arrays, so that compiled code runs over it and Python can look at it.

Endpoints are numbered: nodes 0..n-1 in plan order, then the coordinator's sending side n, and its receiving side
n + 1. Lists (a layer's queue, a link's queue, a batch) are chains through the `next` fields, -1 at the end.
"""

from __future__ import annotations

import numpy as np

NONE = -1
BUSY, BLOCKED, STARVED = 0, 1, 2

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
        # What waits to leave: all of it in order of arrival, and what the policy has not seen yet.
        ("out_head", "i8"),
        ("out_tail", "i8"),
        ("out_count", "i8"),
        ("out_prompts", "i8"),
        ("new_head", "i8"),
        ("new_tail", "i8"),
        ("send_free", "f8"),
        ("receive_free", "f8"),
        # Books.
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
QUERY = np.dtype(
    [
        ("input", "i8"),
        ("output", "i8"),
        ("decoding", "i8"),
        ("done", "i8"),
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
        ("free_piece", "i8"),
        ("free_pieces", "i8"),
        ("free_message", "i8"),
        ("free_messages", "i8"),
        ("stalled", "i8"),
        ("drafts", "i8"),
        ("last_draft", "i8"),
        ("finished", "i8"),
        ("continued", "i8"),
    ]
)
"""`copy_bytes`: copied between host and GPU for each token that a node has received since its last first-layer step."""
PIECE = np.dtype(
    [
        ("query", "i8"),
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
"""A prefill chunk or a decode token on its way (range execution)."""
MESSAGE = np.dtype([("head", "i8"), ("link", "i8"), ("size", "f8"), ("next", "i8")])
BATCH = np.dtype([("node", "i8"), ("start", "f8"), ("end", "f8"), ("prefill", "i8"), ("decodes", "i8")])


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
