"""What policies and reports read of a ranged simulation, which its driver changes."""

from __future__ import annotations

from collections import deque

from helix_kit.flow import Pipeline
from helix_kit.scheduling import PagedKV
from helix_kit.simulator.backlog import BacklogView
from helix_kit.simulator.ranged.cached_kv import CachedKV
from helix_kit.simulator.ranged.growing_state import GrowingState
from helix_kit.simulator.ranged.overload import overload_notes
from helix_kit.workload.request import Request


class RangedView(BacklogView, GrowingState):
    """Base of the ranged driver: its answers to policies (a `View`) and to reports."""

    issued: int
    """Requests of the workload that have arrived."""
    live: dict[int, Request]
    """Requests on a pipeline, with what they had generated before as part of their prompts."""
    pipelines: dict[int, Pipeline]
    """The pipeline that each request was given last."""
    kv: PagedKV | CachedKV
    """KV pages of the nodes."""
    waiting_samples: list[tuple[float, int]]
    """(time in s, requests that wait)."""
    _waiting: deque[int]
    _dead: set[str]

    @property
    def all_admitted(self) -> bool:
        """Whether every request of the workload was admitted or rejected, so that none waits."""
        return self.issued == len(self.requests) and not self._waiting

    def pipeline_of(self, at: int) -> Pipeline | None:
        """The pipeline that the request was given last."""
        return self.pipelines.get(at)

    def notes(self) -> list[str]:
        """What a reader of the report should know."""
        notes = []
        if self.waiting_samples and self._dead and self._waiting and not self.live:
            dead = [name for name in self.setup.names if name in self._dead]
            notes.append(f"no pipeline is left without {', '.join(dead)}: {len(self._waiting)} requests wait")
        last_arrival_s = self.requests[self.issued - 1].arrival_s if self.issued else 0.0
        return notes if self._is_offline else notes + overload_notes(self.waiting_samples, last_arrival_s)

    def is_alive(self, node: str) -> bool:
        """Whether the node serves requests."""
        return node not in self._dead

    def queue_length(self, node: str) -> int:
        """Chunks that wait at the node."""
        index, counts = self.setup.number_of[node], self.state.inboxes["count"]
        return int(counts[2 * index] + counts[2 * index + 1])

    def now_s(self) -> float:
        """Seconds since the start."""
        return float(self.clock[0]["now"])

    def has_room(self, node: str, tokens: int, num_layers: int) -> bool:
        """Whether the node's free pages hold `tokens` in `num_layers` layers."""
        return self.kv.has_room(node, tokens, num_layers)

    def cached_tokens(self, request: Request, pipeline: Pipeline) -> int:
        """Tokens of the prompt of the request that is being routed that every stage of the pipeline holds."""
        return self.kv.cached_tokens(pipeline) if isinstance(self.kv, CachedKV) else 0
