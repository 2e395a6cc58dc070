"""The coordinator: a thread of the user's process that admits requests, routes them, and hands out their tokens.

It owns all state of requests and workers, so that this state needs no lock: other threads leave functions in a
`CommandQueue`, which wakes the thread up. Workers send messages over zmq.
"""

from __future__ import annotations

import logging
import queue
import select
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import zmq

from helix_kit.cluster import COORDINATOR
from helix_kit.flow import Pipeline
from helix_kit.placement.plan import Plan
from helix_kit.runtime.coordinator.active_request import ActiveRequest
from helix_kit.runtime.coordinator.command_queue import CommandQueue
from helix_kit.runtime.coordinator.request_table import RequestTable
from helix_kit.runtime.coordinator.routing import Router
from helix_kit.runtime.coordinator.token_sender import TokenSender
from helix_kit.runtime.coordinator.worker_manager import WorkerManager
from helix_kit.runtime.handle import Handle
from helix_kit.runtime.node_workers import node_of, to_workers
from helix_kit.runtime.options import ServeOptions
from helix_kit.runtime.status import DroppedCounts, EngineStatus, WorkerStatus
from helix_kit.runtime.transport.messages import HeartbeatMessage, Message, TokensMessage
from helix_kit.runtime.transport.shaping import Shaper, moment_of
from helix_kit.runtime.worker_factory import WorkerFactory, emulated_links
from helix_kit.workload.request import Request

log = logging.getLogger(__name__)

POLL_MS = 250
"""Longest wait of the loop for a message or a command."""
CHECK_S = 0.2
"""How often ended or silent workers and time limits are looked for while messages come in."""
CLOSED = "the engine was closed"


class Coordinator:
    """The coordinator of one engine.

    `start`, `now_s`, `submit`, `cancel`, `call`, `swap` and `close` may be called from any thread; everything else runs
    in the coordinator's own.

    Parameters
    ----------
    plan
        The plan that is served first.
    factory
        Turns nodes of the plan into workers.
    options
        The options of `serve`.
    """

    def __init__(self, plan: Plan, factory: WorkerFactory, options: ServeOptions) -> None:
        self._options = options
        self._context: zmq.Context[Any] = zmq.Context()
        connection = factory.connection
        self._inbox = connection.open_inbox(self._context)
        self._heartbeats = connection.open_inbox(self._context)
        """Heartbeats need not wake up the thread: it takes them in several times a second."""
        self._heartbeats.dropped = self._inbox.dropped
        self.workers = WorkerManager(
            plan,
            factory,
            (self._inbox.endpoint, self._heartbeats.endpoint),
            connection.open_outbox(self._context),
            self,
            timeouts=options.worker_timeouts,
            restart_workers=options.restart_workers,
        )
        self.workers.ledger.chunk_tokens = options.chunk_tokens
        self._shaper: Shaper | None = None
        if options.emulated:
            self._shaper = Shaper(
                lambda: connection.open_outbox(self._context),
                emulated_links(plan, COORDINATOR),
                options.time_scale,
                plan.cluster.network.nic_bytes_per_s,
            )
        self._sender = TokenSender(
            self.workers,
            chunk_tokens=options.chunk_tokens,
            shaper=self._shaper,
            bytes_per_token=plan.model.token_bytes,
        )
        self.requests = RequestTable(self.workers, self._new_router(plan), self._sender, self.now_s, options.max_queue)
        self._commands = CommandQueue()
        self._stopping = False
        self._came_s = 0.0
        """When the last tokens of this round came over their emulated links; 0: none have."""
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="helix-kit-coordinator", daemon=True)

    def _new_router(self, plan: Plan) -> Router:
        return Router(plan, self._options.policy, self._options.seed, self)

    # ---- called from any thread ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread, which starts the workers; `workers.ready` is set when all are up or one has failed."""
        self._thread.start()

    def now_s(self) -> float:
        """Seconds on the engine's clock."""
        return time.monotonic() - self._began

    def submit(self, active: ActiveRequest) -> None:
        """Take over a request."""
        self._commands.post(lambda: self._submit(active))

    def cancel(self, handle: Handle) -> None:
        """Stop the request of `handle`, if it has not ended."""
        self._commands.post(lambda: self.requests.cancel(handle))

    def call(self, function: Callable[[], Any]) -> Any:
        """The result of `function`, run in the coordinator's thread; raises what it raises."""
        return self._commands.call(function)

    def swap(self, plan: Plan, timeout_s: float) -> None:
        """Put another plan in place; raises what went wrong."""
        answer: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._commands.post(lambda: self.workers.swap(plan, answer.put))
        if error := answer.get(timeout=timeout_s):
            raise error

    def close(self) -> None:
        """Fail what is unfinished, stop the workers, end the thread."""
        if self._thread.is_alive():
            self._commands.post(self._stop)
            self._thread.join()

    # ---- what policies may see (`scheduling.View`) ---------------------------------------------------------------

    def is_alive(self, node: str) -> bool:
        """Whether all workers of the node are up."""
        return self.workers.is_alive(node)

    def queue_length(self, node: str) -> int:
        """Requests that have been sent through the node and are unfinished."""
        return self.requests.queue_length(node)

    def has_room(self, node: str, tokens: int, num_layers: int) -> bool:
        """Whether the node has KV pages for one more request of that size."""
        return self.workers.has_pages(node, tokens, num_layers)

    def cached_tokens(self, request: Request, pipeline: Pipeline) -> int:
        """Tokens of the prompt of the request that is being routed that every stage of the pipeline holds."""
        return self.workers.ledger.cached_tokens(to_workers(pipeline, self.workers.workers_of))

    # ---- the thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self.workers.start_all()
            self._loop()
        except Exception as error:
            log.exception("the coordinator failed")
            self.requests.fail_all(f"the coordinator failed: {type(error).__name__}: {error}")
            self.workers.failed_start = self.workers.failed_start or f"{type(error).__name__}: {error}"
        finally:
            self._shut_down()

    def _loop(self) -> None:
        poller = select.poll()  # zmq's own poller asks every socket three times a round
        poller.register(self._inbox, select.POLLIN)
        poller.register(self._commands.socket, select.POLLIN)
        commands, check_at_s, requests = self._commands.socket.fileno(), 0.0, self.requests
        while not self._stopping:
            for ready, _ in poller.poll(POLL_MS):
                if ready == commands:
                    self._commands.drain_wakeups()
                    self._commands.run_all()
                else:
                    for message in self._inbox.receive(is_readable=True):
                        self._handle_message(message)
            # Not in every round: these checks together take longer than handling a token.
            if (now_s := time.monotonic()) >= check_at_s:
                check_at_s = now_s + CHECK_S
                self._take_heartbeats()
                self.workers.check()
                requests.reject_overdue()
                requests.may_admit = True  # a policy may have reasons of its own to let a request in now
            if requests.waiting and requests.may_admit:
                requests.admit()
            if self._sender.batches:
                self._sender.flush(self._came_s)
            self._came_s = 0.0

    def _stop(self) -> None:
        self._stopping = True

    def _shut_down(self) -> None:
        self._stopping = True
        self.requests.fail_all(CLOSED)
        if self._shaper is not None:
            self._shaper.close()
        self.workers.close()
        self._inbox.close()
        self._heartbeats.close()
        self._context.term()
        self._commands.run_all()  # answers calls that still wait; requests among the commands fail
        self.requests.fail_all(CLOSED)
        self._commands.close()
        self.workers.ready.set()

    def _submit(self, active: ActiveRequest) -> None:
        if self._stopping:
            self.requests.refuse(active, CLOSED)
        else:
            self.requests.submit(active)

    def _take_heartbeats(self) -> None:
        if self._stopping:
            return
        for message in self._heartbeats.receive():
            self._handle_message(message)

    def _handle_message(self, message: Message) -> None:
        if isinstance(message, TokensMessage):
            worker = self.workers.sender_of(message)
            if worker is not None:
                came_s = worker.heard_s
                if self._shaper is not None:
                    came_s = moment_of(message.due_s, came_s)
                    self._came_s = max(self._came_s, came_s)
                for sampled in message.tokens:
                    self.requests.add_token(sampled, came_s - self._began)
        else:
            worker = self.workers.receive(message)
            if worker is not None and isinstance(message, HeartbeatMessage):
                self._tell_hop_times(worker.name, message.hop_s)
        if worker is None:
            self._inbox.dropped.stale += 1

    def _tell_hop_times(self, worker: str, hop_s: Mapping[str, float]) -> None:
        """Tell the policy how long rows from each sender were at a worker."""
        node = node_of(worker)
        # The time on the node's first worker stands for each of its workers: they have equally many layers.
        count = len(self.workers.workers_of.get(node, ()))
        for sender, seconds in hop_s.items():
            self.requests.router.policy_hop_time(node_of(sender), node, seconds * count)

    # ---- `WorkerEvents` ------------------------------------------------------------------------------------------

    def on_worker_gone(self, worker: str, was_lost: bool) -> None:
        """A worker has ended: its requests wait for another pipeline."""
        if self._shaper is not None:
            self._shaper.forget(self.workers.records[worker].endpoint)
        self.requests.start_again(worker, was_lost=was_lost)

    def on_workers_changed(self) -> None:
        """Other workers are up than before: solve the flow again for their nodes."""
        self.requests.router.replan(node for node in self.workers.workers_of if self.is_alive(node))
        self.requests.may_admit = True
        self.requests.fail_without_pipeline()

    def on_plan_changed(self, plan: Plan) -> None:
        """Another plan is in place: route over its nodes from now on."""
        self.requests.router = self._new_router(plan)

    def status(self) -> EngineStatus:
        """The state of the engine now."""
        self._take_heartbeats()
        now, dropped = time.monotonic(), self._inbox.dropped
        workers = {}
        for worker in self.workers.records.values():
            workers[worker.name] = WorkerStatus(
                state=worker.state,
                pid=worker.pid,
                rank_pids=worker.rank_pids,
                layers=worker.layers,
                pages=worker.pages,
                reason=worker.reason,
                description=worker.description,
                report_age_s=None if worker.reported_s is None else now - worker.reported_s,
                **msgspec.structs.asdict(worker.counters),
            )
        return EngineStatus(
            workers=workers,
            waiting=len(self.requests.waiting),
            running=len(self.requests.running),
            pages_promised=self.workers.ledger.pages_promised,
            tokens_out=self.requests.tokens_out,
            prompt_tokens=self.requests.prompt_tokens,
            cached_tokens=self.requests.cached_tokens,
            coordinator_cpu_s=time.thread_time(),
            losses=tuple(self.workers.losses),
            flow_tokens_per_s=self.requests.router.flow_tokens_per_s,
            dropped_messages=DroppedCounts(dropped.malformed, dropped.foreign, dropped.stale),
        )
