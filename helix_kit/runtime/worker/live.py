"""A request as a worker knows it, its rows that wait for a step, and what a step sends on."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import torch

from helix_kit.runtime.transport.messages import WorkItem
from helix_kit.runtime.transport.tensors import wire_of
from helix_kit.runtime.worker.kv_cache import BlockTable
from helix_kit.runtime.worker.sampling import SamplingParams
from helix_kit.runtime.worker.stage import Rows, Segment


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
    route: list[list[Any]]
    sampling: SamplingParams
    sampling_fields: list[Any]
    table: BlockTable
    waiting: deque[Work] = field(default_factory=deque)
    announced: bool = False
    """Whether the next stage has been sent the route."""
    received: int = 0


Packet = tuple[dict[str, Any], Any, str, tuple[int, ...]]
"""Body of a message, its tensor, dtype and shape."""


def packed(
    work: list[tuple[int, Work]], members: list[Live], hidden: list[torch.Tensor], hidden_size: int
) -> dict[str, Packet]:
    """One message per next hop: its items and their rows in one tensor."""
    by_hop: dict[str, tuple[list[WorkItem], list[torch.Tensor]]] = {}
    for live, (_, piece), rows in zip(members, work, hidden):
        if live.next_endpoint is None:
            continue
        item = piece.item
        first = not live.announced
        live.announced = True
        items, parts = by_hop.setdefault(live.next_endpoint, ([], []))
        items.append(
            WorkItem(
                item.request,
                item.epoch,
                item.position,
                item.tokens,
                item.last,
                live.route if first else None,
                live.sampling_fields if first else None,
            )
        )
        parts.append(rows)
    packets: dict[str, Packet] = {}
    for endpoint, (items, parts) in by_hop.items():
        tensor, dtype = wire_of(torch.cat(parts))
        shape: tuple[int, ...] = (sum(len(p) for p in parts), hidden_size)
        packets[endpoint] = ({"items": [item.pack() for item in items]}, tensor, dtype, shape)
    return packets


def step_sizes(parts: list[Segment], batch: list[Rows]) -> list[tuple[int, int, int]]:
    """(layers, prefill tokens, decode requests) of each stretch of layers with the same requests."""
    sizes = []
    for first, end, active in parts:
        prefill = sum(batch[i].tokens for i in active if batch[i].tokens > 1)
        decode = sum(1 for i in active if batch[i].tokens == 1)
        sizes.append((end - first, prefill, decode))
    return sizes
