"""Which waiting rows go into the next step: decodes first, then prefill chunks, at most one chunk for each request."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Protocol, TypeVar


class HasTokens(Protocol):
    """A chunk of waiting rows."""

    @property
    def tokens(self) -> int:
        """Number of rows."""
        ...


@dataclass(frozen=True, slots=True)
class StepLimits:
    """Limits of one step: rows, and requests that decode."""

    tokens: int = 512
    decode_requests: int = 256


R = TypeVar("R", bound=Hashable)
C = TypeVar("C", bound=HasTokens)


def take_next_step(waiting: Iterable[tuple[R, deque[C]]], limits: StepLimits) -> list[tuple[R, C]]:
    """Take the next step's chunks out of their queues.

    Decodes go first, since a user waits for each of their tokens. Prefill chunks fill the rest of the token budget in
    the order of the requests. A chunk larger than the whole budget runs alone; otherwise it would never run.

    Parameters
    ----------
    waiting
        Each request with the queue of its chunks, the oldest request first. The chosen chunks are removed.
    limits
        Limits of the step.

    Returns
    -------
    (request, chunk) pairs, the decodes first.

    Examples
    --------
    >>> class Chunk(int):
    ...     tokens = property(int)
    >>> queues = {"a": deque([Chunk(300), Chunk(1)]), "b": deque([Chunk(1)]), "c": deque([Chunk(300)])}
    >>> take_next_step(queues.items(), StepLimits(tokens=512))
    [('b', 1), ('a', 300)]
    >>> take_next_step(queues.items(), StepLimits(tokens=512))
    [('a', 1), ('c', 300)]
    """
    queues = [(request, queue) for request, queue in waiting if queue]
    chosen: list[tuple[R, C]] = []
    budget = limits.tokens
    for request, queue in queues:
        if queue[0].tokens == 1 and len(chosen) < limits.decode_requests and budget > 0:
            chosen.append((request, queue.popleft()))
            budget -= 1
    decoding = {request for request, _ in chosen}
    for request, queue in queues:
        if request in decoding or not queue or queue[0].tokens == 1:
            continue
        if queue[0].tokens <= budget or not chosen:
            chunk = queue.popleft()
            chosen.append((request, chunk))
            budget -= chunk.tokens
    return chosen
