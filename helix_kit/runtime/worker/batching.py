"""Which waiting rows go into the next step: decodes first, then prefill chunks, at most one per request."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, TypeVar


class HasTokens(Protocol):
    """Waiting work: how many rows it brings."""

    @property
    def tokens(self) -> int:
        """Rows."""
        ...


@dataclass(frozen=True, slots=True)
class StepLimits:
    """Most that one step takes in."""

    tokens: int = 512
    decode_requests: int = 256


W = TypeVar("W", bound=HasTokens)


def choose(waiting: Iterable[tuple[int, deque[W]]], limits: StepLimits) -> list[tuple[int, W]]:
    """Take the next step's work out of the queues, which are given per request in order of arrival.

    Decodes go first, since each of them is a user waiting for one token. Prefill chunks fill what is left of the
    token budget, in order of arrival; a chunk larger than the whole budget runs alone rather than never.
    """
    queues = [(request, queue) for request, queue in waiting if queue]
    chosen: list[tuple[int, W]] = []
    budget = limits.tokens
    for request, queue in queues:
        if queue[0].tokens == 1 and len(chosen) < limits.decode_requests and budget > 0:
            chosen.append((request, queue.popleft()))
            budget -= 1
    taken = {request for request, _ in chosen}
    for request, queue in queues:
        if request in taken or not queue or queue[0].tokens == 1:
            continue
        if queue[0].tokens <= budget or not chosen:
            work = queue.popleft()
            chosen.append((request, work))
            budget -= work.tokens
    return chosen
