"""The requests that a worker knows, with their rows that wait for a step.

A worker learns of a request from its first item, which says where the request comes from and where it goes next. It
forgets a request when the coordinator frees it. Late items of an attempt that was freed are recognised by their epoch.
"""

from __future__ import annotations

import array
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import msgspec
import torch

from helix_kit.cluster import COORDINATOR
from helix_kit.runtime.transport.messages import BlockRun, RequestEpoch, RouteStage, WorkItem
from helix_kit.runtime.worker.kept_blocks import KeptBlocks
from helix_kit.runtime.worker.kv_cache import PAGE_TOKENS, BlockTable, PagePool
from helix_kit.runtime.worker.sampling_params import SamplingParams
from helix_kit.runtime.worker.token_counts import TokenCounts

MAX_FREED_EPOCHS = 2048
"""Freed requests whose epoch is remembered."""


@dataclass(slots=True)
class WaitingRows:
    """Rows of one request that wait for a step: `item` describes them."""

    item: WorkItem
    rows: torch.Tensor
    """Token ids (tokens,) or hidden states (tokens, hidden size), on the host.

    Tokens that this worker has sampled itself are where they were sampled.
    """
    arrived_s: float

    @property
    def tokens(self) -> int:
        """Number of rows."""
        return self.item.tokens


@dataclass(slots=True, eq=False)
class WorkerRequest:
    """One attempt at a request, as a worker knows it: it runs layers [start, end) here."""

    id: int
    epoch: int
    start: int
    end: int
    source: str
    """Worker or coordinator that sends the request's rows."""
    next_stage: RouteStage | None
    """The next stage; None if this worker is the last stage."""
    first_stage: RouteStage | None
    """The first stage; None if this worker is the first stage."""
    route: tuple[str, ...]
    """The workers of all stages, in order."""
    sampling: SamplingParams
    table: BlockTable
    counts: TokenCounts | None = None
    """The request's tokens so far, on its last stage; None where sampling does not depend on them."""
    waiting: deque[WaitingRows] = field(default_factory=deque)
    decode_until: int = 0
    """Tokens before this position are sent to the first stage by the last one, not by the coordinator."""
    rotary_tokens: int = 0
    """Tokens of its sequence that rotary frequencies are for, at least, where they depend on the length."""
    received: int = 0
    """Rows that have arrived so far; the next item must start at this position."""

    @property
    def takes_token_ids(self) -> bool:
        """Whether the rows arrive as token ids rather than hidden states."""
        return self.start == 0


def known_tokens(item: WorkItem) -> list[int]:
    """The token ids that came with an item's rows; none where sampling does not depend on them."""
    return array.array("i", item.token_ids).tolist() if item.token_ids else []


class HeldRequests:
    """All requests of one worker.

    Parameters
    ----------
    worker
        Name of the worker, as routes spell it.
    start, end
        The worker's layers [start, end).
    num_layers
        Layers of the whole model.
    pool
        Pages of the worker. Those of a request return to it when the request is freed.
    windows
        Window of each of the worker's layers in tokens, 0 for none, where pages are returned when it has passed.
    """

    def __init__(
        self, worker: str, start: int, end: int, num_layers: int, pool: PagePool, windows: Sequence[int] = ()
    ) -> None:
        self._worker, self._start, self._end, self._num_layers = worker, start, end, num_layers
        self._kept = KeptBlocks(pool, start, windows)
        self._requests: dict[int, WorkerRequest] = {}
        self._freed: OrderedDict[int, int] = OrderedDict()
        """Request -> highest epoch that was freed."""

    def __len__(self) -> int:
        return len(self._requests)

    def in_order_of_arrival(self) -> list[WorkerRequest]:
        """All requests, the oldest first."""
        return list(self._requests.values())

    def has_waiting_rows(self) -> bool:
        """Whether rows of any request wait for a step."""
        return any(request.waiting for request in self._requests.values())

    def accept(self, item: WorkItem, *, is_token_ids: bool) -> WorkerRequest | None:
        """The request that `item` belongs to; a new one for the first item of an attempt.

        Returns None for an item that cannot be used: it is late, it does not continue what has arrived, or its route
        does not lead through this worker's layers.
        """
        if item.epoch <= self._freed.get(item.request, -1):
            return None
        request = self._requests.get(item.request)
        if request is not None and request.epoch < item.epoch:
            # Its pages stay until it is freed: the coordinator says then which of them are kept.
            del self._requests[item.request]
            request = None
        if request is None:
            request = self._new_request(item, is_token_ids=is_token_ids)
            if request is None:
                return None
            self._requests[item.request] = request
        continues = item.epoch == request.epoch and item.position == request.received
        if not continues or is_token_ids != request.takes_token_ids:
            return None
        if request.counts is not None:
            if item.token_ids is None:
                return None
            request.counts.add(known_tokens(item)[: item.tokens + (item.position if item.route is not None else 0)])
        request.decode_until = max(request.decode_until, item.decode_until)
        return request

    def free(self, freed: RequestEpoch, kept: Iterable[BlockRun] = ()) -> None:
        """Drop a request up to this epoch, return its pages except `kept`, and ignore its items from now on."""
        request = self._requests.get(freed.request)
        if request is not None and request.epoch <= freed.epoch:
            del self._requests[request.id]
            self._kept.end(request.id, request.epoch, kept if request.epoch == freed.epoch else ())
        else:
            self._kept.end(freed.request, freed.epoch, kept)
        self._freed[freed.request] = max(freed.epoch, self._freed.get(freed.request, -1))
        while len(self._freed) > MAX_FREED_EPOCHS:
            self._freed.popitem(last=False)

    def evict(self, blocks: Iterable[BlockRun]) -> None:
        """Return the pages of blocks that were kept."""
        for run in blocks:
            self._kept.evict(run)

    def _new_request(self, item: WorkItem, *, is_token_ids: bool) -> WorkerRequest | None:
        if item.route is None or item.sampling is None:
            return None
        own_stages = [i for i, stage in enumerate(item.route) if stage.node == self._worker]
        if len(own_stages) != 1:
            return None
        [index] = own_stages
        stage = item.route[index]
        following = item.route[index + 1] if index + 1 < len(item.route) else None
        if not self._start <= stage.start < stage.end <= self._end:
            return None
        if (following is None) != (stage.end == self._num_layers) or is_token_ids != (stage.start == 0):
            return None
        if item.position != PAGE_TOKENS * sum(run.count for run in stage.shared):
            return None
        table = self._kept.new_table(item.request, item.epoch, stage)
        if table is None:
            return None
        sampling = SamplingParams(*msgspec.structs.astuple(item.sampling))
        return WorkerRequest(
            id=item.request,
            epoch=item.epoch,
            start=stage.start,
            end=stage.end,
            source=item.route[index - 1].node if index else COORDINATOR,
            next_stage=following,
            sampling=sampling,
            table=table,
            received=item.position,
            counts=TokenCounts(sampling.prompt_tokens) if following is None and sampling.has_penalties else None,
            first_stage=item.route[0] if index else None,
            route=tuple(stage.node for stage in item.route),
            decode_until=item.decode_until,
            rotary_tokens=item.rotary_tokens,
        )
