"""The coordinator: a thread of the user's process that lets requests in, routes them, and hands out their tokens.

It owns all state of requests and workers, so nothing here needs a lock: other threads leave commands in a queue and
ring a bell. Workers answer over zmq. A request is identified by (id, epoch); the epoch rises when it has to start
again because a worker was lost, so that late messages of the earlier attempt are recognised.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import zmq

from helix_kit.flow import Pipeline
from helix_kit.placement.plan import Plan
from helix_kit.runtime import messages
from helix_kit.runtime.admission import PageLedger, can_ever_fit
from helix_kit.runtime.jobs import Completion, FinishReason, Handle, Job, Piece, RequestFailedError
from helix_kit.runtime.members import Launcher, Member
from helix_kit.runtime.messages import Message, WorkItem
from helix_kit.runtime.routing import Router
from helix_kit.runtime.spec import WorkerSpec
from helix_kit.runtime.transport import CurveKeys, Inbox, Outbox, PeerLostError

log = logging.getLogger(__name__)

POLL_MS = 100


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds after which something is given up."""

    start_s: float = 180.0
    """From a worker's start to its first word."""
    silence_s: float = 2.0
    """From a worker's last heartbeat until it counts as lost (frozen, or cut off)."""


class Coordinator:
    """See the module; `start` returns when the thread runs."""

    def __init__(
        self,
        plan: Plan,
        launcher: Launcher,
        make_spec: Callable[[Plan, str, int, str, str], WorkerSpec],
        *,
        policy: Any = "helix",
        seed: int = 0,
        chunk_tokens: int = 256,
        timeouts: Timeouts | None = None,
        host: str = "127.0.0.1",
        keys: CurveKeys | None = None,
        key: bytes = b"",
        restart_workers: bool = False,
        max_queue: int | None = None,
    ) -> None:
        self._launcher, self._make_spec = launcher, make_spec
        self._chunk_tokens, self._timeouts = chunk_tokens, timeouts or Timeouts()
        self._key, self._restart_workers, self._max_queue = key, restart_workers, max_queue
        self._context: zmq.Context[Any] = zmq.Context()
        self._inbox = Inbox(self._context, key, host=host, keys=keys)
        self._outbox = Outbox(self._context, key, keys=keys)
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._bell_in, self._bell_out = socket.socketpair()
        self._bell_in.setblocking(False)
        self._bell_out.setblocking(False)
        self.members: dict[str, Member] = {}
        self.ledger = PageLedger()
        self.router = Router(plan, policy, seed, self)
        self._waiting: deque[Job] = deque()
        self._running: dict[int, Job] = {}
        self._by_handle: dict[Handle, Job] = {}
        self._outgoing: dict[str, tuple[list[WorkItem], list[int]]] = {}
        self._stopping = False
        self._began = time.monotonic()
        self.losses: list[tuple[float, str, str]] = []
        """(time, node, reason) of every worker lost."""
        self.detection_s: list[float] = []
        """Seconds between the last sign of life of each lost worker and its loss being noticed."""
        self.tokens_out = 0
        self.cpu_s = 0.0
        self.ready = threading.Event()
        self.failed_start: str | None = None
        self._thread = threading.Thread(target=self._run, name="helix-kit-coordinator", daemon=True)

    # ---- called from other threads -------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread, which starts the workers; `ready` is set when all are up or one has failed."""
        self._thread.start()

    def now_s(self) -> float:
        """Seconds on the engine's clock."""
        return time.monotonic() - self._began

    def do(self, command: Callable[[], None]) -> None:
        """Run `command` in the coordinator's thread, soon."""
        self._commands.put(command)
        with contextlib.suppress(BlockingIOError, OSError):
            self._bell_out.send(b"!")

    def ask(self, question: Callable[[], Any], timeout_s: float = 30.0) -> Any:
        """The result of `question`, evaluated in the coordinator's thread."""
        answer: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

        def reply() -> None:
            try:
                answer.put((question(), None))
            except BaseException as error:
                answer.put((None, error))

        self.do(reply)
        value, error = answer.get(timeout=timeout_s)
        if error is not None:
            raise error
        return value

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
        member = self.members.get(node)
        return member is not None and member.state == "up"

    def queue_length(self, node: str) -> int:
        """Requests that have been sent through the node and are unfinished."""
        return sum(any(s.node == node for s in job.pipeline or ()) for job in self._running.values())

    def has_room(self, node: str, tokens: int, num_layers: int) -> bool:
        """Whether the node has KV pages for one more request of that size."""
        return self.ledger.has_room(node, tokens, num_layers)

    # ---- the thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            for node in self.router.plan.placement:
                self._start_worker(node, 0)
            poller = zmq.Poller()
            poller.register(self._inbox.socket, zmq.POLLIN)
            poller.register(self._bell_in, zmq.POLLIN)
            while not self._stopping:
                poller.poll(POLL_MS)
                self._take_commands()
                for message in self._inbox.receive():
                    self._take(message)
                self._check_workers()
                self._expire()
                self._admit()
                self._flush()
                self.cpu_s = time.thread_time()
        except Exception as error:
            log.exception("the coordinator failed")
            self._fail_all(f"the coordinator failed: {type(error).__name__}: {error}")
            self.failed_start = self.failed_start or f"{type(error).__name__}: {error}"
        finally:
            self._shut_down()

    def _take_commands(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._bell_in.recv(4096):
                pass
        while True:
            try:
                command = self._commands.get_nowait()
            except queue.Empty:
                return
            command()

    def _stop(self) -> None:
        self._stopping = True

    def _shut_down(self) -> None:
        self._fail_all("the engine was closed")
        for member in self.members.values():
            if member.state == "up":
                self._send(member.endpoint, "stop", {})
        self._outbox.flush_and_close()
        self._inbox.close()
        self._launcher.close()
        self._context.term()
        self._take_commands()  # whoever still asks gets an answer; what is submitted fails
        self._fail_all("the engine was closed")
        self._bell_in.close()
        self._bell_out.close()
        self.ready.set()

    def _fail_all(self, reason: str) -> None:
        for job in [*self._waiting, *self._running.values()]:
            self._end(job, RequestFailedError(reason, "closed"), outcome="failed")
        self._waiting.clear()

    def _send(self, endpoint: str, kind: str, body: dict[str, Any], **tensor: Any) -> None:
        # A full queue means a dead peer: its silence is noticed by `_check_workers`.
        with contextlib.suppress(PeerLostError):
            self._outbox.send(endpoint, kind, body, **tensor)

    # ---- workers -------------------------------------------------------------------------------------------------

    def _start_worker(self, node: str, generation: int) -> None:
        spec = self._make_spec(self.router.plan, node, generation, self._inbox.endpoint, self._key.hex())
        now = time.monotonic()
        self.members[node] = Member(spec, self._launcher.start(spec), started_s=now, heard_s=now)

    def restart(self, node: str) -> None:
        """Start a new worker for a node whose worker was lost (in the coordinator's thread)."""
        member = self.members[node]
        if member.state == "lost":
            self._start_worker(node, member.spec.generation + 1)

    def _check_workers(self) -> None:
        now = time.monotonic()
        for node, member in list(self.members.items()):
            if member.state == "lost":
                continue
            if not member.process.is_alive():
                self._lose(node, member.reason or "its process ended")
            elif member.state == "up" and now - member.heard_s > self._timeouts.silence_s:
                self._lose(node, f"no heartbeat for {now - member.heard_s:.1f} s")
            elif member.state == "starting" and now - member.started_s > self._timeouts.start_s:
                self._lose(node, f"not ready within {self._timeouts.start_s:.0f} s")

    def _lose(self, node: str, reason: str) -> None:
        member = self.members[node]
        was = member.state
        member.state, member.reason = "lost", reason
        member.process.kill()
        self.ledger.drop_node(node)
        if was == "starting":
            if not self.ready.is_set():
                self.failed_start = f"worker {node}: {reason}"
                self.ready.set()
            self._fail_waiting_without_route()
            return
        log.warning("lost worker %s: %s", node, reason)
        self.losses.append((self.now_s(), node, reason))
        self.detection_s.append(time.monotonic() - member.heard_s)
        self._outbox.forget(member.endpoint)
        self._outgoing.pop(member.endpoint, None)
        for other in self.members.values():
            if other.state == "up":
                self._send(other.endpoint, "forget", {"endpoint": member.endpoint})
        hit = [job for job in self._running.values() if any(s.node == node for s in job.pipeline or ())]
        for job in hit:
            self._leave_pipeline(job)
            job.epoch += 1
            job.record.restarts += 1
        # They have waited longest: back to the head of the queue, in order of arrival.
        self._waiting.extendleft(sorted(hit, key=lambda j: -j.request.id))
        if self._restart_workers:
            self.restart(node)
        self._reroute()

    def _leave_pipeline(self, job: Job) -> None:
        """Free the job's pages on the workers that live, and take it out of the running."""
        for stage in job.pipeline or ():
            member = self.members[stage.node]
            if member.state == "up":
                self._send(member.endpoint, "free", {"rows": [[job.request.id, job.epoch]]})
        self._drop_outgoing(job)
        job.pipeline = None
        self._running.pop(job.request.id, None)
        self.router.policy_finished(job.request)

    def _drop_outgoing(self, job: Job) -> None:
        for endpoint, (items, ids) in list(self._outgoing.items()):
            if not any(item.request == job.request.id for item in items):
                continue
            kept: tuple[list[WorkItem], list[int]] = ([], [])
            at = 0
            for item in items:
                if item.request != job.request.id:
                    kept[0].append(item)
                    kept[1].extend(ids[at : at + item.tokens])
                at += item.tokens
            self._outgoing[endpoint] = kept

    def _reroute(self) -> None:
        """The set of workers has changed: solve the flow again on what is there."""
        self.router.replan(node for node in self.members if self.is_alive(node))
        self._fail_waiting_without_route()

    def _fail_waiting_without_route(self) -> None:
        if self.router.has_pipeline or any(m.state == "starting" for m in self.members.values()):
            return
        lost = ", ".join(f"{m.node} ({m.reason})" for m in self.members.values() if m.state == "lost")
        reason = f"no pipeline is left through all layers; lost: {lost}"
        for job in list(self._waiting):
            self._end(job, RequestFailedError(reason, "no_pipeline"), outcome="failed")
        self._waiting.clear()

    # ---- messages ------------------------------------------------------------------------------------------------

    def _take(self, message: Message) -> None:
        body = message.body
        member = self.members.get(body.get("node", ""))
        if member is None or member.state == "lost" or body.get("generation") != member.spec.generation:
            self._inbox.dropped.stale += 1
            return
        member.heard_s = time.monotonic()
        if message.kind == "tokens":
            for request, epoch, position, token in body["rows"]:
                self._take_token(request, epoch, position, token)
        elif message.kind == "freed":
            for request, epoch in body["rows"]:
                self.ledger.release(member.node, request, epoch)
        elif message.kind == "beat":
            member.stats = body["stats"]
        elif message.kind == "ready":
            member.state, member.endpoint = "up", body["endpoint"]
            member.pages, member.pid = body["pages"], body["pid"]
            self.ledger.add_node(member.node, member.pages)
            # While the first workers come up one by one, there is nothing to route yet.
            if self.ready.is_set() or all(m.state == "up" for m in self.members.values()):
                self._reroute()
                self.ready.set()
        elif message.kind == "failed":
            member.reason = body["reason"]
            self._lose(member.node, member.reason)
        else:
            self._inbox.dropped.malformed += 1

    def _take_token(self, request: int, epoch: int, position: int, token: int) -> None:
        job = self._running.get(request)
        if job is None or job.epoch != epoch or position != len(job.prompt) + len(job.generated):
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
            text, met_stop = job.text.feed(token) if job.text else ("", False)
            if met_stop:
                reason = "stop"
            elif len(job.generated) >= job.request.output_tokens:
                reason = "length"
            job.handle._push(Piece(token, text))
        if reason is not None:
            self._complete(job, reason)
            return
        self.router.policy_token(job.request)
        self._queue_rows(job, position, [token], first=False)

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
            if pipeline and not self.ledger.promise(job.request.id, job.epoch, job.all_tokens, pipeline):
                self.router.policy_refused(job.request, pipeline)
                pipeline = None
            if pipeline:
                self._waiting.popleft()
                self._begin(job, pipeline)
            elif self._can_never_fit(job):
                self._waiting.popleft()
                reason = f"{job.all_tokens} tokens of context fit into the KV pages of no pipeline"
                self._end(job, RequestFailedError(reason, "too_large"), outcome="rejected")
            else:
                return

    def _expire(self) -> None:
        """Reject those that have waited longer than they said."""
        now = self.now_s()
        for job in [j for j in self._waiting if j.deadline_s is not None and now > j.deadline_s]:
            self._waiting.remove(job)
            self._end(job, RequestFailedError("waited longer than its time limit", "timeout"), outcome="rejected")

    def _begin(self, job: Job, pipeline: Pipeline) -> None:
        job.pipeline = job.record.pipeline = pipeline
        self._running[job.request.id] = job
        if job.record.started_s is None:
            job.record.started_s = self.now_s()
        self.router.policy_admitted(job.request, pipeline)
        self._queue_rows(job, 0, job.context, first=True)

    def _can_never_fit(self, job: Job) -> bool:
        # While a worker is coming up, what it will hold is not known: the request waits.
        if any(m.state == "starting" for m in self.members.values()):
            return False
        return not can_ever_fit(job.all_tokens, self.router.links, self.router.placement, self.ledger.capacity)

    def _queue_rows(self, job: Job, position: int, tokens: list[int], *, first: bool) -> None:
        """Leave token ids for the job's first stage: a prompt in chunks, back to back, so that stages overlap."""
        assert job.pipeline is not None, "only running jobs have rows"
        items, ids = self._outgoing.setdefault(self.members[job.pipeline[0].node].endpoint, ([], []))
        route = sampling = None
        if first:
            route = [[s.node, s.start, s.end, self.members[s.node].endpoint] for s in job.pipeline]
            p = job.sampling
            sampling = [p.temperature, p.top_k, p.top_p, p.seed]
        for at in range(0, len(tokens), self._chunk_tokens):
            chunk = tokens[at : at + self._chunk_tokens]
            last = at + len(chunk) == len(tokens)
            items.append(WorkItem(job.request.id, job.epoch, position + at, len(chunk), last, route, sampling))
            ids.extend(chunk)
            route = sampling = None

    def _flush(self) -> None:
        for endpoint, (items, ids) in self._outgoing.items():
            if items:
                body = {"items": [item.pack() for item in items]}
                tensor = messages.ids_frame(ids)
                self._send(endpoint, "run", body, tensor=tensor, dtype="int32", shape=(len(ids),))
        self._outgoing.clear()

    def _complete(self, job: Job, reason: FinishReason) -> None:
        if job.text is not None and (rest := job.text.flush()):
            job.handle._push(Piece(None, rest))
        pipeline = job.pipeline or ()
        answer = Completion(
            text=job.text.text if job.text else "",
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
        return {
            "workers": {
                m.node: {
                    "state": m.state,
                    "pid": m.pid,
                    "layers": [m.spec.start, m.spec.end],
                    "pages": m.pages,
                    "reason": m.reason,
                    **m.stats,
                }
                for m in self.members.values()
            },
            "waiting": len(self._waiting),
            "running": len(self._running),
            "pages_promised": self.ledger.pages_promised,
            "tokens_out": self.tokens_out,
            "coordinator_cpu_s": self.cpu_s,
            "losses": list(self.losses),
            "flow_tokens_per_s": self.router.flow_tokens_per_s,
            "dropped_messages": {
                "malformed": self._inbox.dropped.malformed,
                "foreign": self._inbox.dropped.foreign,
                "stale": self._inbox.dropped.stale,
            },
        }

    def live_nodes(self) -> Iterable[str]:
        """Nodes whose worker is up."""
        return [n for n in self.members if self.is_alive(n)]
