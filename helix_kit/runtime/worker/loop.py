"""A worker: it holds one node's layers, runs steps over whatever has arrived, and passes the rows on.

The loop: take in all messages, choose at most one piece of work per request within the step's budget, run, send
hidden states to each request's next stage (or sample, on the last one, and tell the coordinator). The class is the
same under every launcher; only who calls `run` differs.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
from collections import OrderedDict
from typing import Any

import msgspec
import torch
import zmq

from helix_kit.cluster import COORDINATOR
from helix_kit.runtime import device_memory
from helix_kit.runtime.spec import WorkerSpec
from helix_kit.runtime.transport.messages import (
    MAX_HOPS,
    FailedMessage,
    ForgetMessage,
    FreedMessage,
    FreeMessage,
    HeartbeatMessage,
    Message,
    ReadyMessage,
    RunMessage,
    SampledToken,
    StopMessage,
    TokensMessage,
    WorkerCounters,
    WorkItem,
)
from helix_kit.runtime.transport.shaping import CardInbox, Shaper
from helix_kit.runtime.transport.sockets import CurveKeys, Inbox, Outbox, PeerLostError
from helix_kit.runtime.weights.checkpoint import Checkpoint
from helix_kit.runtime.worker.batching import StepLimits, choose
from helix_kit.runtime.worker.kv_cache import BlockTable
from helix_kit.runtime.worker.live import Live, Work, packed, step_sizes
from helix_kit.runtime.worker.model_layers import ModelLayers, RequestRows, segments
from helix_kit.runtime.worker.pacing import Pacer
from helix_kit.runtime.worker.sampling import SamplingParams, sample
from helix_kit.runtime.worker.transfer import joined_on_device
from helix_kit.runtime.worker.wire_tensors import from_wire

IDLE_POLL_S = 0.1
LINGER_SHARE, LINGER_MOST_S = 0.05, 0.01
"""How long a step waits for rows that are on their way back, as a share of the last step, and at most."""
TOMBSTONES = 2048
TOKEN_BYTES = 8.0
"""Declared size of one token on its way to the coordinator."""


class Worker:
    """One node's worker; `run` returns when it is told to stop."""

    def __init__(self, spec: WorkerSpec, *, own_process: bool = False) -> None:
        self.spec, self._own_process = spec, own_process
        self._sender = (spec.name, spec.generation)
        self._halt = threading.Event()
        self._key = bytes.fromhex(spec.key_hex)
        self._curve = None
        if spec.curve_public and spec.curve_secret:
            self._curve = CurveKeys(spec.curve_public.encode(), spec.curve_secret.encode())
        self._live: OrderedDict[int, Live] = OrderedDict()
        self._buried: OrderedDict[int, int] = OrderedDict()
        """Request -> last epoch that was freed: late messages of it must not take pages again."""
        self._limits = StepLimits(spec.step_tokens, spec.step_decode_requests)
        self._pacer = Pacer(spec.profile, spec.time_scale)
        self._shaper: Shaper | None = None
        self._prefill_tokens = self._decode_tokens = self._pages_peak = 0
        self._awaited: set[int] = set()
        """Requests whose token went out with the last step and whose next row comes here: all of a short round trip."""
        self._linger_until_s = 0.0
        self._hops: dict[str, tuple[float, int]] = {}
        """Since the last heartbeat, by sender: seconds that rows spent here, and how many pieces of work."""

    def halt(self) -> None:
        """Make `run` return soon, without a word to anybody (as if the process had died)."""
        self._halt.set()

    def run(self) -> None:
        """Load the layers, report, serve until told to stop."""
        spec = self.spec
        context: zmq.Context[Any] = zmq.Context()
        self._inbox = Inbox(context, self._key, host=spec.host, keys=self._curve)
        self._outbox = Outbox(context, self._key, keys=self._curve)
        self._arrivals: Inbox | CardInbox = self._inbox
        if spec.links is not None:
            make_outbox = functools.partial(Outbox, context, self._key, keys=self._curve)
            self._shaper = Shaper(make_outbox, spec.links, spec.time_scale, spec.card_bytes_per_s)
            self._arrivals = CardInbox(self._inbox, spec.card_bytes_per_s, spec.bytes_per_token, spec.time_scale)
        beating = threading.Thread(target=self._beat, args=(context,), daemon=True)
        try:
            device_memory.prepare(spec, own_process=self._own_process)
            self._stage = ModelLayers(
                Checkpoint(spec.weights),
                spec.start,
                spec.end,
                dtype=spec.dtype,
                device=spec.device,
                attention_backend=spec.attention,
            )
            self._pool = self._stage.new_pool(device_memory.num_pages(spec, self._stage))
            if self._stage.device.type == "cuda":
                self._warm_up()
            self._tell(ReadyMessage(*self._sender, self._inbox.endpoint, self._pool.num_pages, os.getpid()))
            beating.start()
            self._serve()
        except Exception as error:
            self._tell(FailedMessage(*self._sender, f"{type(error).__name__}: {error}"[:4000]))
            raise
        finally:
            self._halt.set()
            if beating.is_alive():
                beating.join()
            if self._shaper is not None:
                self._shaper.close()
            self._inbox.close()
            self._outbox.flush_and_close()
            context.term()

    @torch.inference_mode()
    def _warm_up(self) -> None:
        """Run one prefill and one decode, so that the first request does not wait for one-time set-up.

        A GPU loads its libraries then; FlashInfer compiles its kernels when they are first used, which takes minutes.
        """
        stage, table = self._stage, BlockTable(self.spec.end - self.spec.start)
        for position, tokens in ((0, 2), (2, 1)):
            hidden = torch.zeros(tokens, stage.hidden_size, dtype=stage.dtype, device=stage.device)
            table.grow(self._pool, tokens)
            [result] = stage.run(self._pool, [RequestRows(table, hidden, position, stage.start, stage.end)])
            if stage.end == stage.num_layers:
                stage.logits(result[-1:])
        table.release(self._pool)

    def _tell(self, message: Message) -> None:
        # A coordinator that takes nothing any more is gone, and with it everything there is to do.
        with contextlib.suppress(PeerLostError):
            self._outbox.send(self.spec.coordinator, message)

    def _beat(self, context: zmq.Context[Any]) -> None:
        """Say now and then that the process lives (from a thread: a step may take longer than a beat)."""
        outbox = Outbox(context, self._key, keys=self._curve)
        # All workers of a machine beat at the same moments: the coordinator wakes up once for all of them.
        period_s = self.spec.heartbeat_s
        while not self._halt.wait(period_s - time.monotonic() % period_s):
            hops, self._hops = self._hops, {}
            means_s = {source: spent_s / count for source, (spent_s, count) in list(hops.items())[:MAX_HOPS]}
            with contextlib.suppress(PeerLostError):
                outbox.send(self.spec.coordinator, HeartbeatMessage(*self._sender, self._counters(), means_s))
        outbox.flush_and_close(0)

    def _counters(self) -> WorkerCounters:
        pacer, dropped = self._pacer, self._inbox.dropped
        return WorkerCounters(
            pages_used=self._pool.used,
            requests=len(self._live),
            steps=pacer.steps,
            overruns=pacer.overruns,
            overrun_s=pacer.overrun_s,
            busy_s=pacer.busy_s,
            prefill_tokens=self._prefill_tokens,
            decode_tokens=self._decode_tokens,
            pages_peak=self._pages_peak,
            malformed=dropped.malformed,
            foreign=dropped.foreign,
            stale=dropped.stale,
            cpu_s=time.process_time(),
        )

    def _serve(self) -> None:
        back_to_back = False
        while not self._halt.is_set():
            idle = not any(live.waiting for live in self._live.values())
            linger_s = self._linger_until_s - time.monotonic() if self._awaited else 0.0
            for message in self._arrivals.receive(IDLE_POLL_S if idle else max(0.0, linger_s)):
                if isinstance(message, StopMessage):
                    return
                self._take(message)
            if self._awaited and time.monotonic() < self._linger_until_s:
                continue
            work = choose(((r, live.waiting) for r, live in self._live.items()), self._limits)
            if work:
                self._step(work, back_to_back and not idle)
            back_to_back = bool(work)

    def _take(self, message: Message) -> None:
        if isinstance(message, RunMessage):
            self._take_rows(message)
        elif isinstance(message, FreeMessage):
            for freed in message.requests:
                self._free(freed.request, freed.epoch)
            self._tell(FreedMessage(*self._sender, message.requests))
        elif isinstance(message, ForgetMessage):
            self._outbox.forget(message.endpoint)
            if self._shaper is not None:
                self._shaper.forget(message.endpoint)
        else:
            self._inbox.dropped.malformed += 1

    def _free(self, request: int, epoch: int) -> None:
        self._awaited.discard(request)
        live = self._live.get(request)
        if live is not None and live.epoch <= epoch:
            live.table.release(self._pool)
            del self._live[request]
        self._buried[request] = max(epoch, self._buried.get(request, -1))
        while len(self._buried) > TOMBSTONES:
            self._buried.popitem(last=False)

    def _take_rows(self, message: RunMessage) -> None:
        rows = from_wire(message)
        is_ids = message.dtype == "int32"
        if len(message.shape) != (1 if is_ids else 2) or (not is_ids and message.shape[1] != self._stage.hidden_size):
            self._inbox.dropped.malformed += 1
            return
        at, now = 0, time.monotonic()
        for item in message.items:
            part = rows[at : at + item.tokens]
            at += item.tokens
            live = self._admit(item, is_ids)
            if live is None:
                self._inbox.dropped.stale += 1
                continue
            self._awaited.discard(item.request)
            live.received += item.tokens
            live.waiting.append(Work(item, part, now))

    def _admit(self, item: WorkItem, is_ids: bool) -> Live | None:
        """The request that `item` belongs to; None when the item is late, or does not fit what came before."""
        if item.epoch <= self._buried.get(item.request, -1):
            return None
        live = self._live.get(item.request)
        if live is not None and live.epoch < item.epoch:
            live.table.release(self._pool)
            del self._live[item.request]
            live = None
        if live is None:
            if item.position != 0 or item.route is None or item.sampling is None:
                return None
            mine = [i for i, stage in enumerate(item.route) if stage.node == self.spec.name]
            if len(mine) != 1:
                return None
            start, end = item.route[mine[0]].start, item.route[mine[0]].end
            if not self.spec.start <= start < end <= self.spec.end or is_ids != (start == 0):
                return None
            is_last = mine[0] + 1 == len(item.route)
            if is_last != (end == self._stage.num_layers):
                return None
            live = self._live[item.request] = Live(
                epoch=item.epoch,
                start=start,
                end=end,
                source=COORDINATOR if mine[0] == 0 else item.route[mine[0] - 1].node,
                next_endpoint=None if is_last else item.route[mine[0] + 1].endpoint,
                next_node=COORDINATOR if is_last else item.route[mine[0] + 1].node,
                sampling=SamplingParams(*msgspec.structs.astuple(item.sampling)),
                table=BlockTable(end - start),
            )
        fits = item.epoch == live.epoch and item.position == live.received and is_ids == (live.start == 0)
        return live if fits else None

    def _step(self, work: list[tuple[int, Work]], back_to_back: bool) -> None:
        began = self._pacer.begin(back_to_back)
        members = [self._live[request] for request, _ in work]
        batch = []
        for live, (_, piece), rows in zip(members, work, self._inputs(members, work)):
            live.table.grow(self._pool, piece.tokens)
            batch.append(RequestRows(live.table, rows, piece.item.position, live.start, live.end))
        parts = segments([(rows.start, rows.end) for rows in batch])
        results = self._stage.run(self._pool, batch, parts)
        prefill = sum(piece.tokens for _, piece in work if piece.tokens > 1)
        self._prefill_tokens += prefill
        self._decode_tokens += sum(piece.tokens for _, piece in work) - prefill
        self._pages_peak = max(self._pages_peak, self._pool.used)
        tokens = self._sample(work, members, results)
        packets = packed(work, members, results, self._stage.hidden_size)
        self._pacer.finish(began, step_sizes(parts, batch))
        now, hops = time.monotonic(), self._hops
        for live, (_, piece) in zip(members, work):
            spent_s, count = hops.get(live.source, (0.0, 0))
            hops[live.source] = (spent_s + now - piece.arrived_s, count + 1)
        nodes = {live.next_endpoint: live.next_node for live in members}
        for endpoint, message in packets.items():
            if self._shaper is not None:
                size = message.shape[0] * self.spec.bytes_per_token
                self._shaper.send(nodes[endpoint], size, endpoint, message)
                continue
            # A peer whose queue is full is dead; the coordinator finds that out and restarts its requests.
            with contextlib.suppress(PeerLostError):
                self._outbox.send(endpoint, message)
        if tokens and self._shaper is not None:
            told = TokensMessage(*self._sender, tokens)
            self._shaper.send(COORDINATOR, TOKEN_BYTES * len(tokens), self.spec.coordinator, told)
        elif tokens:
            self._tell(TokensMessage(*self._sender, tokens))
            self._await(began, tokens, members, work)

    def _await(
        self, began: float, tokens: list[SampledToken], members: list[Live], work: list[tuple[int, Work]]
    ) -> None:
        """Let the next step wait a moment for rows that the coordinator sends straight back.

        Without it the requests of a worker that holds all layers fall into two halves, each of which computes while
        the other's tokens are under way, and twice as many steps are run. A paced worker does as its profile says.
        """
        if self.spec.profile is not None:
            return
        whole = {request for live, (request, _) in zip(members, work) if live.start == 0}
        self._awaited = {token.request for token in tokens} & whole
        now = time.monotonic()
        self._linger_until_s = now + min(LINGER_MOST_S, LINGER_SHARE * (now - began))

    @torch.inference_mode()
    def _inputs(self, members: list[Live], work: list[tuple[int, Work]]) -> list[torch.Tensor]:
        """Each piece's rows on the device: ids embedded, hidden states as they came; one copy for each of the two."""
        stage, rows = self._stage, [piece.rows for _, piece in work]
        for are_ids in (True, False):
            mine = [i for i, live in enumerate(members) if (live.start == 0) == are_ids]
            if not mine:
                continue
            joined = joined_on_device([rows[i] for i in mine], stage.device)
            joined = (stage.embed(joined) if are_ids else joined).to(stage.dtype)
            for i, part in zip(mine, joined.split([len(rows[i]) for i in mine])):
                rows[i] = part
        return rows

    @torch.inference_mode()
    def _sample(
        self, work: list[tuple[int, Work]], members: list[Live], hidden: list[torch.Tensor]
    ) -> list[SampledToken]:
        """The token of each request whose prompt is complete and whose last stage is here."""
        pairs = enumerate(zip(members, work))
        ends = [i for i, (live, (_, piece)) in pairs if live.next_endpoint is None and piece.item.wants_token]
        if not ends:
            return []
        logits = self._stage.logits(torch.stack([hidden[i][-1] for i in ends]))
        positions = [work[i][1].item.position + work[i][1].tokens for i in ends]
        chosen = sample(logits, [members[i].sampling for i in ends], positions)
        return [SampledToken(work[i][0], members[i].epoch, p, t) for i, p, t in zip(ends, positions, chosen)]


def run_worker(spec: WorkerSpec) -> None:
    """Run a worker in this process, which is its alone, until it is told to stop."""
    Worker(spec, own_process=True).run()
