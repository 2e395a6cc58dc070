"""Arrays that the compiled rules of replicas run over, and what their fields mean.

Lists (the waiting queue, the free blocks) are chains through `next` fields, which are `NONE` at the end. Times are in
s.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from helix_kit.simulator.state import NONE

WAITING, RUNNING, DONE = 0, 1, 2

REPLICA = np.dtype(
    [
        # Fixed: the engine's settings.
        ("depth", "i8"),
        ("overlaps", "i8"),
        ("max_requests", "i8"),
        ("token_budget", "i8"),
        ("chunked", "i8"),
        ("block_tokens", "i8"),
        ("prefix_cache", "i8"),
        ("schedule", "f8"),
        ("answer", "f8"),
        ("record_batches", "i8"),
        ("window_start", "f8"),
        ("window_end", "f8"),
        # What runs now.
        ("now", "f8"),
        ("arrived", "i8"),
        ("next_arrival", "i8"),
        ("waiting_head", "i8"),
        ("waiting_tail", "i8"),
        ("waiting", "i8"),
        ("running", "i8"),
        ("flight_first", "i8"),
        ("flights", "i8"),
        ("free_head", "i8"),
        ("free_tail", "i8"),
        ("free", "i8"),
        # Statistics.
        ("batches", "i8"),
        ("tokens", "i8"),
        ("kv_peak", "i8"),
        ("hit_tokens", "i8"),
        ("asked_tokens", "i8"),
        ("preemptions", "i8"),
        ("steps", "i8"),
    ]
)
"""One replica. `depth` is the number of steps that may be scheduled and not finished; `overlaps` says that a request
may be in two of them (its last token is not known yet, but where it goes is). `schedule` is the time between the
decision and the start of a step, `answer` the time from the end of a step to the client. Prompt tokens that were looked
up in the prefix cache are `asked_tokens`, those found `hit_tokens`."""

STAGE = np.dtype(
    [
        ("fixed", "f8"),
        ("mixed", "f8"),
        ("eager", "f8"),
        ("graph_tokens", "i8"),
        ("context", "f8"),
        ("pair", "f8"),
        ("sampled", "f8"),
        ("hop", "f8"),
        ("hop_token", "f8"),
        # What runs now, and statistics.
        ("free_at", "f8"),
        ("busy", "f8"),
        ("prefill_tokens", "i8"),
        ("decode_tokens", "i8"),
    ]
)
"""One stage of a replica: seconds of a step (see `helix_kit.profiles.step.StepCosts`), and of the hop to the next."""

REQUEST = np.dtype(
    [
        ("arrival", "f8"),
        ("input", "i8"),
        ("output", "i8"),
        ("first_key", "i8"),
        ("keys", "i8"),
        ("state", "i8"),
        ("slot", "i8"),
        ("next", "i8"),
        ("computed", "i8"),
        ("sampled", "i8"),
        ("generated", "i8"),
        ("in_flight", "i8"),
        ("lost", "i8"),
        ("hit_tokens", "i8"),
        ("restarts", "i8"),
        ("started", "f8"),
        ("finished", "f8"),
    ]
)
"""A request. `computed` tokens have their KV cache scheduled; `sampled` tokens are asked for and `generated` are back.
The content of its first `keys` blocks has the keys from `first_key` on."""

BLOCK = np.dtype([("key", "i8"), ("users", "i8"), ("previous", "i8"), ("next", "i8")])
FLIGHT = np.dtype([("end", "f8"), ("requests", "i8")])
"""A step that has been scheduled and has not ended."""


class State(NamedTuple):
    """Everything that the compiled rules read and write for one replica."""

    replica: np.ndarray
    """`REPLICA`, shape (1,)."""
    stages: np.ndarray
    """`STAGE`."""
    linear: np.ndarray
    """Seconds for everything that depends on a step's tokens alone, by stage and tokens."""
    requests: np.ndarray
    """`REQUEST`, all of the workload."""
    arrivals: np.ndarray
    """Requests that were sent here, in order; the replica's `arrived` says how many."""
    keys: np.ndarray
    """Block keys of all requests, end to end."""
    block_of_key: np.ndarray
    """The block that holds a key's content, or `NONE`."""
    blocks: np.ndarray
    """`BLOCK`."""
    running: np.ndarray
    """Requests in order of admission."""
    slots: np.ndarray
    """Blocks of each running request, shape (max_requests, blocks of the longest)."""
    free_slots: np.ndarray
    """A stack of the slots that no request has; as many as may still be admitted."""
    flights: np.ndarray
    """`FLIGHT`, a ring of `depth`."""
    flight_requests: np.ndarray
    """Requests that get a token at the end of a flight, shape (depth, max_requests)."""
    token_request: np.ndarray
    """Request of each token that came back."""
    token_time: np.ndarray
    """Its time at the client."""
    batches: np.ndarray
    """`helix_kit.simulator.state.BATCH`."""


def free_list(count: int) -> np.ndarray:
    """`count` empty blocks, chained in order."""
    blocks = np.zeros(count, dtype=BLOCK)
    blocks["key"] = NONE
    blocks["next"] = np.append(np.arange(1, count), NONE)
    blocks["previous"] = np.arange(count) - 1
    return blocks
