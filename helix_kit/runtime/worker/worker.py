"""A worker: it holds the layers of one node, runs steps over the rows that have arrived, and passes the rows on.

Its loop takes in all messages, chooses at most one chunk of each request within the step's budget, and runs the step.
Then it sends hidden states to the next stage of each request; on the last stage it samples tokens and sends them to the
coordinator. The class is the same under every launcher, as a process or as a thread.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
from typing import Any

import zmq

from helix_kit.cluster import COORDINATOR
from helix_kit.runtime import device_memory
from helix_kit.runtime.spec import WorkerSpec
from helix_kit.runtime.transport.messages import (
    MAX_HOPS,
    EvictMessage,
    FailedMessage,
    ForgetMessage,
    FreeMessage,
    HeartbeatMessage,
    Message,
    ReadyMessage,
    RunMessage,
    SampledToken,
    StartingMessage,
    StopMessage,
    TokensMessage,
    WorkerCounters,
)
from helix_kit.runtime.transport.shaping import CardInbox, Shaper, moment_of
from helix_kit.runtime.transport.sockets import CurveKeys, Inbox, Outbox, PeerLostError
from helix_kit.runtime.weights.checkpoint import Checkpoint
from helix_kit.runtime.worker import flashinfer
from helix_kit.runtime.worker.batching import StepLimits, take_next_step
from helix_kit.runtime.worker.follower import Follower, load_layers, meet
from helix_kit.runtime.worker.kv_cache import PAGE_TOKENS
from helix_kit.runtime.worker.model_layers import ModelLayers
from helix_kit.runtime.worker.pacing import Pacer
from helix_kit.runtime.worker.rank_group import RankGroup
from helix_kit.runtime.worker.rank_steps import LeadingLayers, stop_ranks
from helix_kit.runtime.worker.requests import HeldRequests, WaitingRows, WorkerRequest
from helix_kit.runtime.worker.returning_rows import ReturningRows
from helix_kit.runtime.worker.row_copies import RowCopies
from helix_kit.runtime.worker.stand_in import StandInLayers
from helix_kit.runtime.worker.step import NextStageMessage, RunningStep, StepEntry, start_step
from helix_kit.runtime.worker.wire_tensors import from_wire

IDLE_POLL_S, OWN_PROCESS_POLL_S = 0.1, 1.0
"""How often an idle worker looks whether it was halted. Only a worker in a thread is; messages wake up both."""
TOKEN_BYTES = 8.0
"""Declared size of one token on its way to the coordinator."""


Chosen = list[tuple[WorkerRequest, WaitingRows]]


class Worker:
    """The worker of one node, or one of several workers of a node.

    Parameters
    ----------
    spec
        Layers, weights, device, limits and the endpoint of the coordinator.
    own_process
        Whether the worker has a process of its own. Only then it changes settings of the whole process.
    """

    def __init__(self, spec: WorkerSpec, *, own_process: bool = False) -> None:
        self.spec, self._own_process = spec, own_process
        self._sender = (spec.name, spec.generation)
        self._poll_s = OWN_PROCESS_POLL_S if own_process else IDLE_POLL_S
        self._halt = threading.Event()
        self._key = bytes.fromhex(spec.key_hex)
        self._curve = None
        if spec.curve_public and spec.curve_secret:
            self._curve = CurveKeys(spec.curve_public.encode(), spec.curve_secret.encode())
        self._limits = StepLimits(spec.step_tokens, spec.step_decode_requests)
        self._pacer = Pacer(spec.profile, spec.time_scale)
        self._shaper: Shaper | None = None
        self._copies: RowCopies | None = None
        self._prepared = ""
        self._group: RankGroup | None = None
        self._prefill_tokens = self._decode_tokens = self._pages_peak = 0
        self._hops: dict[str, tuple[float, int]] = {}
        """By sender, since the last heartbeat: seconds that chunks spent here, and the number of chunks."""

    def halt(self) -> None:
        """Make `run` return soon without telling the coordinator, as if the process had died."""
        self._halt.set()

    def run(self) -> None:
        """Load the layers, report to the coordinator, and serve until a `StopMessage` arrives."""
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
            self._group = RankGroup(spec) if spec.ranks else None
            self._say(f"loading layers {spec.start} to {spec.end - 1}")
            self._model = self._load_layers()
            num_pages, pids = self._meet()
            self._pool = self._model.new_pool(num_pages)
            if isinstance(self._model, ModelLayers) and self._model.device.type == "cuda":
                self._warm_up(self._model)
                self._copies = RowCopies(self._model.device)
            self._overlaps = self._model.device.type == "cuda" and spec.goes_on
            windows = self._model.windows
            self._requests = HeldRequests(spec.name, spec.start, spec.end, self._model.num_layers, self._pool, windows)
            self._returning = self._rows_that_return()
            self._tell(
                ReadyMessage(
                    *self._sender,
                    endpoint=self._inbox.endpoint,
                    pages=self._pool.num_pages,
                    pid=os.getpid(),
                    rank_pids=pids,
                    windows=list(windows),
                    description=self._model.description,
                )
            )
            beating.start()
            self._serve()
        except Exception as error:
            self._tell(FailedMessage(*self._sender, f"{type(error).__name__}: {error}"[:4000]))
            raise
        finally:
            self._halt.set()
            if self._group is not None:
                stop_ranks(self._group)
            if beating.is_alive():
                beating.join()
            if self._shaper is not None:
                self._shaper.close()
            self._inbox.close()
            self._outbox.flush_and_close()
            context.term()

    def _rows_that_return(self) -> ReturningRows:
        spec = self.spec
        own = spec.end - spec.start
        return ReturningRows(own, self._model.num_layers - own, (spec.name, *spec.shares_device_with))

    def _load_layers(self) -> ModelLayers | StandInLayers:
        spec = self.spec
        if spec.stand_in:
            return StandInLayers(Checkpoint(spec.weights, spec.quantize), spec.start, spec.end)
        kind = LeadingLayers if self._group else ModelLayers
        # While one thread captures a graph, CUDA refuses work of others: workers in threads run without graphs.
        return load_layers(spec, self._group, kind, graphs=spec.graphs and self._own_process)

    def _meet(self) -> tuple[int, list[int]]:
        """KV pages that there is memory for, and the process ids of the ranks; none for a worker that is alone."""
        if self._group is None or not isinstance(self._model, ModelLayers):
            return device_memory.num_pages(self.spec, self._model), []
        return meet(self.spec, self._group, self._model)

    def _warm_up(self, model: ModelLayers) -> None:
        """Run the first steps of a GPU, and say how long FlashInfer's compiler took, if it did."""
        if model.attention == "flashinfer":
            self._say(f"preparing FlashInfer's kernels; {flashinfer.about_compiling()}")
            began_s = time.monotonic()
            model.warm_up(self._pool)
            self._prepared = f"FlashInfer's kernels were ready after {time.monotonic() - began_s:.0f} s; "
        model.warm_up(self._pool, self.spec.step_decode_requests, self._say_captured)

    def _say(self, doing: str) -> None:
        self._tell(StartingMessage(*self._sender, doing))

    def _say_captured(self, done: int, total: int) -> None:
        self._say(f"{self._prepared}{done} of {total} CUDA graphs captured")

    def _tell(self, message: Message) -> None:
        # A coordinator whose queue is full is gone; then this worker has nothing to do any more.
        with contextlib.suppress(PeerLostError):
            self._outbox.send(self.spec.coordinator, message)

    def _beat(self, context: zmq.Context[Any]) -> None:
        """Send heartbeats. They come from a thread, since a step may take longer than the time between two of them."""
        outbox = Outbox(context, self._key, keys=self._curve)
        endpoint, period_s = self.spec.heartbeats or self.spec.coordinator, self.spec.heartbeat_s
        # All workers of a machine send at the same moments, so the coordinator takes all heartbeats in at once.
        while not self._halt.wait(period_s - time.monotonic() % period_s):
            if self._group is not None and self._group.is_held_up:
                continue  # another rank may be stopped; the coordinator, hearing nothing, looks at the processes
            hops, self._hops = self._hops, {}
            means_s = {source: spent_s / count for source, (spent_s, count) in list(hops.items())[:MAX_HOPS]}
            with contextlib.suppress(PeerLostError):
                outbox.send(endpoint, HeartbeatMessage(*self._sender, self._counters(), means_s))
        outbox.flush_and_close(0)

    def _counters(self) -> WorkerCounters:
        pacer, dropped = self._pacer, self._inbox.dropped
        return WorkerCounters(
            pages_used=self._pool.used,
            requests=len(self._requests),
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
            pages_cached=max(0, self._pool.idle),  # the loop may take pages while they are counted
        )

    def _serve(self) -> None:
        is_short = False
        running: tuple[float, RunningStep] | None = None
        while not self._halt.is_set():
            if running is not None:
                wait_s = 0.0
            elif is_short or not self._requests.has_waiting_rows():
                wait_s = self._poll_s
            else:
                wait_s = self._returning.wait_s()
            for message in self._arrivals.receive(wait_s):
                if isinstance(message, StopMessage):
                    return
                self._take(message)
            if self._returning.wait_s():
                if running is not None:
                    self._finish(*running)
                    running = None
                continue
            waiting = ((request, request.waiting) for request in self._requests.in_order_of_arrival())
            was_short = is_short
            chosen, is_short = self._with_pages(take_next_step(waiting, self._limits))
            started = self._start(chosen, had_to_wait=was_short) if chosen else None
            # While a GPU computes a step, it is given the next one, and then the results of the first are sent.
            if running is not None:
                self._finish(*running)
            running = started
            if running is not None and not self._overlaps:
                self._finish(*running)
                running = None

    def _with_pages(self, chosen: Chosen) -> tuple[Chosen, bool]:
        """The chosen rows for which there are pages, and whether others wait for theirs.

        The coordinator promises every request its pages. Rows that come from another worker may overtake the
        coordinator's message that frees these pages or evicts what they hold. Such rows wait for the message.
        """
        pool, layers = self._pool, self.spec.end - self.spec.start
        tokens = max([self.spec.step_tokens, *(rows.tokens for _, rows in chosen[-1:])])
        free = pool.free
        if free >= layers * (len(chosen) + tokens // PAGE_TOKENS + 1):
            return chosen, False
        able: Chosen = []
        for request, rows in chosen:
            needed = request.table.pages_to_grow(rows.tokens)
            if needed <= free:
                free -= needed
                able.append((request, rows))
            else:
                request.waiting.appendleft(rows)
        return able, len(able) < len(chosen) and not able

    def _take(self, message: Message) -> None:
        if isinstance(message, RunMessage):
            self._take_rows(message)
        elif isinstance(message, FreeMessage):
            for freed in message.requests:
                self._returning.forget(freed.request)
                attempt = (freed.request, freed.epoch)
                self._requests.free(freed, [run for run in message.kept if (run.request, run.epoch) == attempt])
        elif isinstance(message, EvictMessage):
            self._requests.evict(message.blocks)
        elif isinstance(message, ForgetMessage):
            self._outbox.forget(message.endpoint)
            if self._shaper is not None:
                self._shaper.forget(message.endpoint)
        else:
            self._inbox.dropped.malformed += 1

    def _take_rows(self, message: RunMessage) -> None:
        is_token_ids = message.dtype == "int32"
        if message.shape[1:] != (() if is_token_ids else (self._model.hidden_size,)):
            self._inbox.dropped.malformed += 1
            return
        rows, at, came_s = from_wire(message), 0, moment_of(message.due_s, time.monotonic())
        for item in message.items:
            own_rows = rows[at : at + item.tokens]
            at += item.tokens
            request = self._requests.accept(item, is_token_ids=is_token_ids)
            if request is None:
                self._inbox.dropped.stale += 1
                continue
            self._returning.forget(item.request)
            request.received += item.tokens
            request.waiting.append(WaitingRows(item, own_rows, came_s))

    def _start(self, chosen: Chosen, *, had_to_wait: bool) -> tuple[float, RunningStep]:
        """Give the device a step; returns when it began, and the step. `had_to_wait`: rows had no pages until now."""
        arrived_s = time.monotonic() if had_to_wait else max(rows.arrived_s for _, rows in chosen)
        began_s = self._pacer.begin(arrived_s)
        with self._pacer.computing():
            step = start_step(self._model, self._pool, chosen, self._copies)
        step.go_on(time.monotonic())
        self._pages_peak = max(self._pages_peak, self._pool.used)
        return began_s, step

    def _finish(self, began_s: float, step: RunningStep) -> None:
        """Wait for a step, and send what came out."""
        step.wait()
        tokens, outgoing = step.tokens(), step.messages()
        ended_s = self._pacer.finish(began_s, step.loads)
        self._count_rows(step.entries)
        for to_next in outgoing:
            self._send_rows(to_next, ended_s)
        if tokens:
            self._send_tokens(tokens, ended_s)
        if self.spec.goes_on:  # a paced worker keeps to its profile instead
            self._returning.await_after(step.entries, time.monotonic() - began_s)

    def _count_rows(self, entries: list[StepEntry]) -> None:
        now_s, hops = time.monotonic(), self._hops
        for entry in entries:
            tokens = entry.item.tokens
            if tokens > 1:
                self._prefill_tokens += tokens
            else:
                self._decode_tokens += 1
            spent_s, count = hops.get(entry.request.source, (0.0, 0))
            hops[entry.request.source] = (spent_s + now_s - entry.arrived_s, count + 1)

    def _send_rows(self, to_next: NextStageMessage, ended_s: float) -> None:
        if self._shaper is not None:
            size = to_next.message.shape[0] * self.spec.bytes_per_token
            self._shaper.send(to_next.worker, size, to_next.endpoint, to_next.message, ended_s)
            return
        # A peer whose queue is full is dead. The coordinator notices that and restarts its requests.
        with contextlib.suppress(PeerLostError):
            self._outbox.send(to_next.endpoint, to_next.message)

    def _send_tokens(self, tokens: list[SampledToken], ended_s: float) -> None:
        message = TokensMessage(*self._sender, tokens)
        if self._shaper is not None:
            self._shaper.send(COORDINATOR, TOKEN_BYTES * len(tokens), self.spec.coordinator, message, ended_s)
        else:
            self._tell(message)


def worker_of(spec: WorkerSpec, *, own_process: bool = False) -> Worker | Follower:
    """What a spec describes: a worker, or one of its ranks beside rank 0."""
    return (Follower if spec.rank else Worker)(spec, own_process=own_process)


def run_worker(spec: WorkerSpec) -> None:
    """Run a worker, or a rank of it, that has this process to itself, until it is told to stop."""
    worker_of(spec, own_process=True).run()
