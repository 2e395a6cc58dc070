"""The state of a cluster, and requests, for tests of scheduling policies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from helix_kit.flow import Pipeline
from helix_kit.workload.request import Request


class OpenView:
    """A cluster with room for every request; `dead` nodes do not serve, and `queues` are the nodes' queue lengths."""

    def __init__(self, dead: Iterable[str] = (), queues: Mapping[str, int] | None = None) -> None:
        self.dead, self.queues = set(dead), queues or {}

    def is_alive(self, node: str) -> bool:
        return node not in self.dead

    def queue_length(self, node: str) -> int:
        return self.queues.get(node, 0)

    def now_s(self) -> float:
        return 0.0

    def has_room(self, node: str, tokens: int, num_layers: int) -> bool:
        return True

    def cached_tokens(self, request: Request, pipeline: Pipeline) -> int:
        return 0


def equal_requests(count: int, tokens: int = 100) -> list[Request]:
    return [Request(number, 0.0, tokens, 10) for number in range(count)]
