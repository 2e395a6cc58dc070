"""Which replica a request goes to, under the scheduling policies' names."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from helix_kit import _files
from helix_kit.errors import InputError
from helix_kit.simulator.replicas.replica import Replica

Router = Callable[[int], int]
"""Request -> replica."""
POLICIES = ("helix", "shortest_queue", "random", "prefix")
"""``prefix`` is for replicas alone."""


def make_router(policy: str, replicas: Sequence[Replica], weights: Sequence[float], seed: int) -> Router:
    """The router of a policy.

    ``helix`` takes turns in proportion to `weights`, the flow of each replica. ``shortest_queue`` takes the one with
    the fewest tokens still to compute. ``prefix`` does so too, and does not count the prompt tokens that the replica's
    prefix cache holds: a request goes to the replica that holds its prefix unless that one has more work to do by as
    much as the prefix would save.
    """
    key = policy.replace("-", "_").lower()
    if key not in POLICIES:
        raise InputError(_files.unknown("policy of replicas", policy, list(POLICIES)), field="policy")
    if key == "random":
        rng = random.Random(seed)
        return lambda at: rng.choices(range(len(replicas)), weights)[0]
    if key == "helix":
        sent = [0.0] * len(replicas)

        def in_turn(at: int) -> int:
            chosen = min(range(len(replicas)), key=lambda i: ((sent[i] + 1) / max(weights[i], 1e-9), i))
            sent[chosen] += 1
            return chosen

        return in_turn
    finds = key == "prefix"

    def least_work(at: int) -> int:
        return min(
            range(len(replicas)),
            key=lambda i: (
                (_tokens_to_compute(replicas[i]) - finds * replicas[i].cached_tokens(at)) / max(weights[i], 1e-9)
            ),
        )

    return least_work


def _tokens_to_compute(replica: Replica) -> int:
    """Prompt tokens that are not computed yet, and answer tokens to come, of the requests that were sent there."""
    arrived = replica.state.arrivals[: int(replica.record["arrived"])]
    requests = replica.state.requests[arrived[-4 * int(replica.record["max_requests"]) :]]
    open_ones = requests[requests["finished"] < 0]
    return int((open_ones["input"] + open_ones["output"] - open_ones["computed"]).sum())
