"""The coordinator: a thread of the user's process that lets requests in, routes them, and hands out their tokens.

It owns all state of requests and workers, so nothing here needs a lock: other threads leave commands in a queue and
ring a bell. Workers answer over zmq. A request is identified by (id, epoch); the epoch rises when it has to start
again because a worker was lost, so that late messages of the earlier attempt are recognised.
"""

from __future__ import annotations

import functools
import logging
import math
import queue
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import zmq

from helix_kit.flow import Pipeline
from helix_kit.placement.plan import Plan
from helix_kit.runtime.coordinator.admission import can_ever_fit
from helix_kit.runtime.coordinator.bell import Bell
from helix_kit.runtime.coordinator.crew import Crew, Timeouts
from helix_kit.runtime.coordinator.jobs import Completion, FinishReason, Handle, Job, Piece, RequestFailedError
from helix_kit.runtime.coordinator.members import Launcher
from helix_kit.runtime.coordinator.outgoing import Outgoing
from helix_kit.runtime.coordinator.routing import Router
from helix_kit.runtime.parts import Part, Parts, expand, node_of
from helix_kit.runtime.spec import WorkerSpec
from helix_kit.runtime.transport.messages import (
    FreedMessage,
    FreeMessage,
    HeartbeatMessage,
    Message,
    RequestEpoch,
    SampledToken,
    TokensMessage,
)
from helix_kit.runtime.transport.shaping import LinkQuality, Shaper
from helix_kit.runtime.transport.sockets import CurveKeys, Inbox, Outbox

log = logging.getLogger(__name__)

MOST_LOSSES = 5
"""Lost workers after which a request is started again; after one more it fails, lest it take down all of them."""
POLL_MS = 250
"""Longest pause of the loop."""
LOOK_S = 0.2
"""How often silence, ends of processes and time limits are looked for while messages come in."""


class Coordinator:
    """See the module; `start` returns when the thread runs."""

    def __init__(
        self,
        plan: Plan,
        launcher: Launcher,
        make_spec: Callable[[Plan, Part, int, str, str], WorkerSpec],
        *,
        divide: Callable[[Plan], Parts],
        policy: Any = "helix",
        seed: int = 0,
        chunk_tokens: int = 256,
        timeouts: Timeouts | None = None,
        host: str = "127.0.0.1",
        keys: CurveKeys | None = None,
        key: bytes = b"",
        restart_workers: bool = False,
        max_queue: int | None = None,
        links: Mapping[str, LinkQuality] | None = None,
        time_scale: float = 1.0,
        card_bytes_per_s: float = math.inf,
        token_bytes: float = 0.0,
    ) -> None:
        self._max_queue = max_queue
        self._policy, self._seed = policy, seed
        self._context: zmq.Context[Any] = zmq.Context()
        self._inbox = Inbox(self._context, key, host=host, keys=keys)
        self.crew = Crew(
            plan,
            launcher,
            lambda p, part, generation: make_spec(p, part, generation, self._inbox.endpoint, key.hex()),
            divide,
            Outbox(self._context, key, keys=keys),
            timeouts=timeouts or Timeouts(),
            restart_workers=restart_workers,
            clock=self.now_s,
            on_gone=self._start_again,
            on_change=self._reroute,
            on_swap=self._take_plan,
        )
        self._shaper: Shaper | None = None
        if links is not None:
            self._shaper = Shaper(lambda: Outbox(self._context, key, keys=keys), links, time_scale, card_bytes_per_s)
        self._outgoing = Outgoing(self.crew, chunk_tokens=chunk_tokens, shaper=self._shaper, token_bytes=token_bytes)
        self._bell = Bell()
        self.do, self.ask = self._bell.do, self._bell.ask
        self.router = Router(plan, policy, seed, self)
        self._waiting: deque[Job] = deque()
        self._running: dict[int, Job] = {}
        self._by_handle: dict[Handle, Job] = {}
        self._may_admit = False
        """Whether something has happened since a waiting request was last refused that could let it in."""
        self._stopping = False
        self._began = time.monotonic()
        self.tokens_out = 0
        self._thread = threading.Thread(target=self._run, name="helix-kit-coordinator", daemon=True)

    # ---- called from other threads -------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread, which starts the workers; `crew.ready` is set when all are up or one has failed."""
        self._thread.start()

    def now_s(self) -> float:
        """Seconds on the engine's clock."""
        return time.monotonic() - self._began

    def submit(self, job: Job) -> None:
        """Take over `job`."""
        self.do(lambda: self._accept(job))

    def cancel(self, handle: Handle) -> None:
        """Stop the request of `handle`, if it has not ended."""
        self.do(lambda: self._cancel(handle))

    def close(self) -> None:
        """Fail what is unfinished, stop the workers, end the thread."""
        if self._thread.is_alive():
            self.do(self._stop)
            self._thread.join()

    # ---- the view that policies get ------------------------------------------------------------------------------

    def is_alive(self, node: str) -> bool:
        """Whether the node's worker is up."""
        return self.crew.is_alive(node)

    def queue_length(self, node: str) -> int:
        """Requests that have been sent through the node and are unfinished."""
        return sum(any(s.node == node for s in job.pipeline or ()) for job in self._running.values())

    def has_room(self, node: str, tokens: int, num_layers: int) -> bool:
        """Whether the node has KV pages for one more request of that size."""
        return self.crew.has_pages(node, tokens, num_layers)

    # ---- the thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self.crew.start_all()
            poller = select.poll()  # zmq's own asks every socket three times a round
            poller.register(self._inbox, select.POLLIN)
            poller.register(self._bell.socket, select.POLLIN)
            bell, look_s = self._bell.socket.fileno(), 0.0
            while not self._stopping:
                for ready, _ in poller.poll(POLL_MS):
                    if ready == bell:
                        self._bell.quiet()
                        self._bell.take()
                    else:
                        for message in self._inbox.receive():
                            self._take(message)
                # Not for every token: all of them together take longer than a token does.
                if (now_s := time.monotonic()) >= look_s:
                    look_s = now_s + LOOK_S
                    self.crew.check()
                    self._expire()
                    self._may_admit = True  # policies may know reasons of their own
                if self._waiting and self._may_admit:
                    self._admit()
                if self._outgoing:
                    self._outgoing.flush()
        except Exception as error:
            log.exception("the coordinator failed")
            self._fail_all(f"the coordinator failed: {type(error).__name__}: {error}")
            self.crew.failed_start = self.crew.failed_start or f"{type(error).__name__}: {error}"
        finally:
            self._shut_down()

    def _stop(self) -> None:
        self._stopping = True

    def _shut_down(self) -> None:
        self._fail_all("the engine was closed")
        if self._shaper is not None:
            self._shaper.close()
        self.crew.close()
        self._inbox.close()
        self._context.term()
        self._bell.take()  # whoever still asks gets an answer; what is submitted fails
        self._fail_all("the engine was closed")
        self._bell.close()
        self.crew.ready.set()

    def _fail_all(self, reason: str) -> None:
        for job in [*self._waiting, *self._running.values()]:
            self._end(job, RequestFailedError(reason, "closed"), outcome="failed")
        self._waiting.clear()

    # ---- workers -------------------------------------------------------------------------------------------------

    def swap(self, plan: Plan, timeout_s: float) -> None:
        """Put another plan in place (called from other threads); raises what went wrong."""
        answer: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self.do(lambda: self.crew.swap(plan, answer.put))
        if error := answer.get(timeout=timeout_s):
            raise error

    def _take_plan(self, plan: Plan) -> None:
        self.router = Router(plan, self._policy, self._seed, self)

    def _start_again(self, worker: str, was_lost: bool) -> None:
        """A node's worker is gone: its requests go back to the head of the queue, in order of arrival."""
        if self._shaper is not None:
            self._shaper.forget(self.crew.members[worker].endpoint)
        hit = [job for job in self._running.values() if any(s.node == worker for s in job.route)]
        again: list[Job] = []
        for job in hit:
            job.losses += was_lost
            if job.losses > MOST_LOSSES:
                reason = f"{job.losses} workers were lost while they had this request, which may be what ended them"
                self._end(job, RequestFailedError(reason), outcome="failed")
                continue
            self._leave_pipeline(job)
            job.epoch += 1
            job.record.restarts += 1
            again.append(job)
        self._waiting.extendleft(sorted(again, key=lambda j: -j.request.id))

    def _leave_pipeline(self, job: Job) -> None:
        """Free the job's pages on the workers that live, and take it out of the running."""
        for stage in job.route:
            member = self.crew.members[stage.node]
            if member.state == "up":
                self.crew.send(member.endpoint, FreeMessage([RequestEpoch(job.request.id, job.epoch)]))
        self._outgoing.drop(job)
        job.pipeline, job.route = None, ()
        self._running.pop(job.request.id, None)
        self.router.policy_finished(job.request)
        self._may_admit = True

    def _reroute(self) -> None:
        """The set of workers has changed: solve the flow again on what is there."""
        self.router.replan(node for node in self.crew.parts if self.is_alive(node))
        self._may_admit = True
        self._fail_waiting_without_route()

    def _fail_waiting_without_route(self) -> None:
        if self.router.has_pipeline or self.crew.is_starting:
            return
        reason = f"no pipeline is left through all layers; lost: {self.crew.lost}"
        for job in list(self._waiting):
            self._end(job, RequestFailedError(reason, "no_pipeline"), outcome="failed")
        self._waiting.clear()

    # ---- messages ------------------------------------------------------------------------------------------------

    def _take(self, message: Message) -> None:
        member = self.crew.hear(message)
        if member is None:
            self._inbox.dropped.stale += 1
        elif isinstance(message, TokensMessage):
            for sampled in message.tokens:
                self._take_token(sampled)
        elif isinstance(message, HeartbeatMessage):
            for name, seconds in message.hop_s.items():
                node = node_of(member.node)
                # What the first of a node's workers takes stands for all: they have as many layers each.
                self.router.policy_hop_time(node_of(name), node, seconds * len(self.crew.parts.get(node, ())))
        elif isinstance(message, FreedMessage):
            for freed in message.requests:
                self.crew.ledger.release(member.node, freed.request, freed.epoch)
            self._may_admit = True

    def _take_token(self, sampled: SampledToken) -> None:
        job, position, token = self._running.get(sampled.request), sampled.position, sampled.token
        if job is None or job.epoch != sampled.epoch or position != len(job.prompt) + len(job.generated):
            return
        now, record = self.now_s(), job.record
        job.generated.append(token)
        record.tokens_generated += 1
        record.token_times_s.append(now)
        if record.first_token_s is None:
            record.first_token_s = now
        self.tokens_out += 1
        reason: FinishReason | None = None
        if token in job.stop_ids:
            reason = "stop"
            job.handle._push(Piece(token, ""))
        else:
            if job.text is not None and job.text.has_stops:
                text, met_stop = job.text.feed(token)
                job.handle._push(Piece(token, text))
            else:
                met_stop = False
                job.handle._push_token(token)
            if met_stop:
                reason = "stop"
            elif len(job.generated) >= job.request.output_tokens:
                reason = "length"
        if reason is not None:
            self._complete(job, reason)
            return
        self.router.policy_token(job.request)
        self._outgoing.add_token(job, position, token)

    # ---- requests ------------------------------------------------------------------------------------------------

    def _accept(self, job: Job) -> None:
        self._by_handle[job.handle] = job
        if self._stopping:
            self._end(job, RequestFailedError("the engine was closed", "closed"), outcome="failed")
        elif self._max_queue is not None and len(self._waiting) >= self._max_queue:
            reason = f"the queue is full ({self._max_queue} requests wait)"
            self._end(job, RequestFailedError(reason, "queue_full"), outcome="rejected")
        else:
            self._waiting.append(job)
            self._may_admit = True
            self._fail_waiting_without_route()

    def _cancel(self, handle: Handle) -> None:
        job = self._by_handle.get(handle)
        if job is None:
            return
        if job in self._waiting:
            self._waiting.remove(job)
        self._complete(job, "cancelled")

    def _admit(self) -> None:
        """Start waiting requests, oldest first, as long as there is room; one that can never fit is rejected."""
        while self._waiting and self.router.has_pipeline:
            job = self._waiting[0]
            pipeline = self.router.route(job.request)
            route = expand(pipeline, self.crew.parts) if pipeline else ()
            if pipeline and not self.crew.ledger.promise(job.request.id, job.epoch, job.all_tokens, route):
                self.router.policy_refused(job.request, pipeline)
                pipeline = None
            if pipeline:
                self._waiting.popleft()
                self._begin(job, pipeline, route)
            elif self._can_never_fit(job):
                self._waiting.popleft()
                reason = f"{job.all_tokens} tokens of context fit into the KV pages of no pipeline"
                self._end(job, RequestFailedError(reason, "too_large"), outcome="rejected")
            else:
                self._may_admit = False
                return

    def _expire(self) -> None:
        """Reject those that have waited longer than they said."""
        now = self.now_s()
        for job in [j for j in self._waiting if j.deadline_s is not None and now > j.deadline_s]:
            self._waiting.remove(job)
            self._end(job, RequestFailedError("waited longer than its time limit", "timeout"), outcome="rejected")

    def _begin(self, job: Job, pipeline: Pipeline, route: Pipeline) -> None:
        job.pipeline = job.record.pipeline = pipeline
        job.route = route
        self._running[job.request.id] = job
        if job.record.started_s is None:
            job.record.started_s = self.now_s()
        self.router.policy_admitted(job.request, pipeline)
        self._outgoing.add_prompt(job)

    def _can_never_fit(self, job: Job) -> bool:
        # While a worker is coming up, what it will hold is not known: the request waits.
        if self.crew.is_starting:
            return False
        holds = functools.partial(self.crew.has_pages, empty=True)
        return not can_ever_fit(job.all_tokens, self.router.links, self.router.placement, holds)

    def _complete(self, job: Job, reason: FinishReason) -> None:
        pipeline = job.pipeline or ()
        answer = Completion(
            text="",  # made by who asks for it
            token_ids=list(job.generated),
            prompt_tokens=len(job.prompt),
            finish_reason=reason,
            pipeline=pipeline,
            record=job.record,
        )
        self._end(job, answer, outcome="cancelled" if reason == "cancelled" else "finished")

    def _end(self, job: Job, result: Completion | RequestFailedError, *, outcome: Any) -> None:
        self._leave_pipeline(job)
        record = job.record
        record.outcome, record.finished_s = outcome, self.now_s()
        if isinstance(result, RequestFailedError):
            record.reason = str(result)
        self._by_handle.pop(job.handle, None)
        job.handle._finish(record, result)

    def status(self) -> dict[str, Any]:
        """A snapshot (in the coordinator's thread): workers, queue, pages, counters."""
        now = time.monotonic()
        return {
            "workers": {
                m.node: {
                    "state": m.state,
                    "pid": m.pid,
                    "layers": [m.spec.start, m.spec.end],
                    "pages": m.pages,
                    "reason": m.reason,
                    "report_age_s": None if m.reported_s is None else now - m.reported_s,
                    **msgspec.structs.asdict(m.counters),
                }
                for m in self.crew.members.values()
            },
            "waiting": len(self._waiting),
            "running": len(self._running),
            "pages_promised": self.crew.ledger.pages_promised,
            "tokens_out": self.tokens_out,
            "coordinator_cpu_s": time.thread_time(),
            "losses": list(self.crew.losses),
            "flow_tokens_per_s": self.router.flow_tokens_per_s,
            "dropped_messages": {
                "malformed": self._inbox.dropped.malformed,
                "foreign": self._inbox.dropped.foreign,
                "stale": self._inbox.dropped.stale,
            },
        }
