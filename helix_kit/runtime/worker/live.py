"""A request as a worker knows it, its rows that wait for a step, and what a step sends on."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import torch

from helix_kit.runtime.transport.messages import RunMessage, WorkItem
from helix_kit.runtime.worker.kv_cache import BlockTable
from helix_kit.runtime.worker.model_layers import RequestRows, Segment
from helix_kit.runtime.worker.sampling import SamplingParams
from helix_kit.runtime.worker.wire_tensors import to_wire


@dataclass(slots=True)
class Work:
    """Rows of one request that wait for a step."""

    item: WorkItem
    rows: torch.Tensor
    arrived_s: float

    @property
    def tokens(self) -> int:
        """Rows it brings."""
        return self.item.tokens


@dataclass(slots=True)
class Live:
    """A request as this worker knows it."""

    epoch: int
    start: int
    end: int
    source: str
    """Where its rows come from."""
    next_endpoint: str | None
    """None: this is the last stage."""
    next_node: str
    sampling: SamplingParams
    table: BlockTable
    waiting: deque[Work] = field(default_factory=deque)
    received: int = 0


def packed(
    work: list[tuple[int, Work]], members: list[Live], hidden: list[torch.Tensor], hidden_size: int
) -> dict[str, RunMessage]:
    """One message per next hop: its items and their rows in one tensor."""
    by_hop: dict[str, tuple[list[WorkItem], list[torch.Tensor]]] = {}
    for live, (_, piece), rows in zip(members, work, hidden):
        if live.next_endpoint is None:
            continue
        items, parts = by_hop.setdefault(live.next_endpoint, ([], []))
        items.append(piece.item)  # unchanged: an epoch's first item brings the route and the sampling to each stage
        parts.append(rows)
    packets: dict[str, RunMessage] = {}
    for endpoint, (items, parts) in by_hop.items():
        tensor, dtype = to_wire(torch.cat(parts))
        shape = (sum(len(p) for p in parts), hidden_size)
        packets[endpoint] = RunMessage(items, dtype, shape, tensor)
    return packets


def step_sizes(parts: list[Segment], batch: list[RequestRows]) -> list[tuple[int, int, int]]:
    """(layers, prefill tokens, decode requests) of each stretch of layers with the same requests."""
    sizes = []
    for first, end, active in parts:
        prefill = sum(batch[i].tokens for i in active if batch[i].tokens > 1)
        decode = sum(1 for i in active if batch[i].tokens == 1)
        sizes.append((end - first, prefill, decode))
    return sizes
