"""The workers of an engine: started, watched, replaced when they are lost, exchanged when the plan changes.

Everything here runs in the coordinator's thread. What the loss of a worker means for requests is decided by the
coordinator, which the manager calls through `WorkerEvents`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from helix_kit.errors import HelixKitError
from helix_kit.placement.plan import Plan
from helix_kit.runtime.coordinator.admission import PageLedger
from helix_kit.runtime.coordinator.worker_record import WorkerRecord
from helix_kit.runtime.node_workers import NodeWorker, NodeWorkers, covering_stages, node_of
from helix_kit.runtime.options import Timeouts
from helix_kit.runtime.status import Loss
from helix_kit.runtime.transport.messages import (
    FailedMessage,
    ForgetMessage,
    FromWorker,
    HeartbeatMessage,
    Message,
    ReadyMessage,
    StartingMessage,
    StopMessage,
)
from helix_kit.runtime.transport.sockets import Outbox, PeerLostError
from helix_kit.runtime.worker_factory import WorkerFactory

log = logging.getLogger(__name__)

MIN_SWAP_PAGES_SHARE = 0.5
"""A swap is refused if a new worker gets less than this share of the KV pages of its profile: beside the worker that it
replaces it finds less memory, and it keeps its number of pages for good."""
STALL_S = 0.5
"""`check` is called several times a second. After a longer gap, this process itself was held up."""


class SwapError(HelixKitError):
    """A new plan could not be put in place; the old one is still served.

    Examples
    --------
    >>> try:                                                               # doctest: +SKIP
    ...     engine.swap(other_plan)
    ... except SwapError as error:
    ...     print(error)
    worker a: not ready within 180 s
    """


class WorkerEvents(Protocol):
    """What the manager tells the coordinator."""

    def now_s(self) -> float:
        """Seconds on the engine's clock."""
        ...

    def on_worker_gone(self, worker: str, was_lost: bool) -> None:
        """A worker that was up has ended, and its KV pages with it: it was lost, or a new plan does without it."""
        ...

    def on_workers_changed(self) -> None:
        """The set of workers that are up has changed."""
        ...

    def on_plan_changed(self, plan: Plan) -> None:
        """Another plan has been put in place; `on_workers_changed` follows."""
        ...


@dataclass(slots=True)
class _Swap:
    """A plan that is being put in place: its new workers load while the old plan is served."""

    plan: Plan
    workers: NodeWorkers
    incoming: dict[str, WorkerRecord]
    """The new workers by name."""
    finish: Callable[[HelixKitError | None], None]


class WorkerManager:
    """The workers of the nodes of a plan.

    Parameters
    ----------
    plan
        The plan that is served first.
    factory
        Divides nodes into workers, and starts these.
    endpoints
        Where the workers report, and where they send heartbeats.
    outbox
        Sends to the workers; the manager closes it.
    events
        The coordinator.
    timeouts
        When a worker counts as lost.
    restart_workers
        Whether a lost worker is started again at once.
    """

    def __init__(
        self,
        plan: Plan,
        factory: WorkerFactory,
        endpoints: tuple[str, str],
        outbox: Outbox,
        events: WorkerEvents,
        *,
        timeouts: Timeouts,
        restart_workers: bool,
    ) -> None:
        self.plan = plan
        self.workers_of: NodeWorkers = factory.divide(plan)
        """The workers of each node of the plan."""
        self.factory, self._endpoints, self._outbox, self._events = factory, endpoints, outbox, events
        self._timeouts, self._restart_workers = timeouts, restart_workers
        self.records: dict[str, WorkerRecord] = {}
        """By name of the worker."""
        self.ledger = PageLedger()
        self.losses: list[Loss] = []
        """Every worker that was lost."""
        self.detection_s: list[float] = []
        """For each lost worker, seconds from its last message until its loss was noticed."""
        self.ready = threading.Event()
        """Set when the first workers are all up, or when one of them has failed. The thread of `serve` waits for it."""
        self.failed_start: str | None = None
        """Why the first workers are not all up; written before `ready` is set."""
        self._swap: _Swap | None = None
        self._generation = 0
        """Number of the next start."""
        self._checked_s = time.monotonic()

    # ---- state ---------------------------------------------------------------------------------------------------

    def is_alive(self, node: str) -> bool:
        """Whether all workers of the node are up."""
        records = [self.records.get(worker.name) for worker in self.workers_of.get(node, ())]
        return bool(records) and all(record is not None and record.state == "up" for record in records)

    def has_pages(self, node: str, tokens: int, num_layers: int, *, when_empty: bool = False) -> bool:
        """Whether the KV pages for `tokens` of one request fit into the node's last `num_layers` layers.

        The number says which layers they are, since requests leave a node after its last layer. `when_empty` asks
        whether they would fit if the node held no other request.
        """
        workers = self.workers_of.get(node, ())
        ledger = self.ledger
        stages = covering_stages(workers, workers[-1].end - num_layers, workers[-1].end) if workers else []
        if when_empty:
            return bool(stages) and all(ledger.can_hold(s.node, tokens, s.start, s.end) for s in stages)
        return bool(stages) and all(ledger.has_room(s.node, tokens, s.start, s.end) for s in stages)

    @property
    def is_starting(self) -> bool:
        """Whether a worker of the current plan is coming up."""
        return any(worker.state == "starting" for worker in self.records.values())

    @property
    def start_progress(self) -> str:
        """How far the first workers are, for people. May be read in any thread."""
        records = list(self.records.values())
        up = sum(record.state == "up" for record in records)
        said = f"{up} of {sum(map(len, self.workers_of.values()))} workers are up"
        doing = [f"{record.name}: {record.doing}" for record in records if record.state == "starting" and record.doing]
        return "; ".join([said, *doing[:1]])

    @property
    def lost_reasons(self) -> str:
        """The lost workers and why they were lost, for messages."""
        return ", ".join(f"{w.name} ({w.reason})" for w in self.records.values() if w.state == "lost")

    def send(self, endpoint: str, message: Message) -> None:
        """Send to a worker. A full queue means that the peer is dead: `check` notices its silence."""
        try:
            self._outbox.send(endpoint, message)
        except PeerLostError:
            log.debug("%s takes no more messages", endpoint)

    # ---- starting and ending -------------------------------------------------------------------------------------

    def start_all(self) -> None:
        """Start the workers of the plan."""
        for worker in _all_workers(self.workers_of):
            self.records[worker.name] = self._start(self.plan, worker)

    def _start(self, plan: Plan, worker: NodeWorker) -> WorkerRecord:
        spec = self.factory.make_spec(plan, worker, self._generation, *self._endpoints)
        self._generation += 1
        process = self.factory.launcher.start(spec)
        now = time.monotonic()
        return WorkerRecord(spec, process, started_s=now, heard_s=now)

    def restart(self, node: str) -> None:
        """Start new workers in place of those of the node that were lost."""
        for worker in self.workers_of[node]:
            if self.records[worker.name].state == "lost":
                self.records[worker.name] = self._start(self.plan, worker)

    def close(self) -> None:
        """Tell all workers to stop, and end them."""
        if self._swap is not None:
            self._fail_swap(SwapError("the engine was closed"))
        for worker in self.records.values():
            if worker.state == "up":
                self.send(worker.endpoint, StopMessage())
        self._outbox.flush_and_close()
        self.factory.launcher.close()

    # ---- watching ------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Notice workers that have ended, are silent, or do not come up in time."""
        now = time.monotonic()
        stalled_s, self._checked_s = now - self._checked_s, now
        if stalled_s > STALL_S:
            # This process did not run (the machine was busy or suspended), so that it heard no worker in that time.
            for worker in self.records.values():
                worker.heard_s = min(now, worker.heard_s + stalled_s)
        for worker in list(self.records.values()):
            if reason := self._loss_reason(worker):
                self._lose(worker, reason)
        if self._swap is not None:
            for worker in self._swap.incoming.values():
                if reason := self._loss_reason(worker):
                    self._fail_swap(SwapError(f"worker {worker.name}: {reason}"))
                    break

    def _loss_reason(self, worker: WorkerRecord) -> str | None:
        """Why the worker has to be given up; None when it need not be, or has been already."""
        now = time.monotonic()
        if worker.state == "lost":
            return None
        if not worker.process.is_alive():
            return worker.reason or "its process ended"
        if worker.state == "up" and (silent_s := now - worker.heard_s) > self._timeouts.silence_of(True):
            # Only now, since asking for a process's state takes a system call.
            stopped = worker.process.is_stopped()
            if silent_s > self._timeouts.silence_of(stopped):
                seen = {True: ": its process is stopped", False: ", though its process runs", None: ""}[stopped]
                return f"no heartbeat for {silent_s:.1f} s{seen}"
        if worker.state == "starting" and now - worker.started_s > self._timeouts.start_s:
            return f"not ready within {self._timeouts.start_s:.0f} s"
        return None

    def sender_of(self, message: FromWorker) -> WorkerRecord | None:
        """The worker that sent a message, and has been heard of by that; None when it is no longer in use."""
        name, generation = message.node, message.generation
        worker = self.records.get(name)
        if self._swap is not None and (worker is None or worker.spec.generation != generation):
            worker = self._swap.incoming.get(name)
        if worker is None or worker.spec.generation != generation or worker.state == "lost":
            return None
        worker.heard_s = time.monotonic()
        return worker

    def receive(self, message: Message) -> WorkerRecord | None:
        """Act on a message about a worker itself: a heartbeat, what its start is at, that it is ready or has failed.

        Returns the worker; None when it is no longer in use, or the message is from no worker.
        """
        worker = self.sender_of(message) if isinstance(message, FromWorker) else None
        if worker is None:
            return None
        if isinstance(message, HeartbeatMessage):
            worker.counters, worker.reported_s = message.counters, worker.heard_s
        elif isinstance(message, ReadyMessage):
            worker.state, worker.endpoint = "up", message.endpoint
            worker.pages, worker.pid, worker.rank_pids = message.pages, message.pid, tuple(message.rank_pids)
            worker.windows, worker.description = tuple(message.windows), message.description
            self._on_ready(worker)
        elif isinstance(message, StartingMessage):
            worker.doing = message.doing
        elif isinstance(message, FailedMessage):
            worker.reason = message.reason
            if self.records.get(worker.name) is worker:
                self._lose(worker, worker.reason)
            else:
                self._fail_swap(SwapError(f"worker {worker.name}: {worker.reason}"))
        return worker

    def _on_ready(self, worker: WorkerRecord) -> None:
        if self._swap is not None and self._swap.incoming.get(worker.name) is worker:
            self._on_ready_for_swap(self._swap, worker)
            return
        self.ledger.add_worker(worker.name, worker.pages, worker.spec.start, worker.windows)
        # While the first workers come up one by one, there is nothing to route yet.
        if self.ready.is_set() or all(w.state == "up" for w in self.records.values()):
            self._events.on_workers_changed()
            self.ready.set()

    def _lose(self, worker: WorkerRecord, reason: str) -> None:
        state_before = worker.state
        self._end_worker(worker, reason, was_lost=True)
        if state_before == "starting":
            if not self.ready.is_set():
                self.failed_start = f"worker {worker.name}: {reason}"
                self.ready.set()
        else:
            log.warning("lost worker %s: %s", worker.name, reason)
            self.losses.append(Loss(self._events.now_s(), worker.name, reason))
            self.detection_s.append(time.monotonic() - worker.heard_s)
            if self._restart_workers:
                self.restart(node_of(worker.name))
        self._events.on_workers_changed()

    def _end_worker(self, worker: WorkerRecord, reason: str, *, was_lost: bool) -> None:
        """End a worker's process, drop its pages, and tell the coordinator and the other workers."""
        worker.state, worker.reason = "lost", reason
        worker.process.kill()
        self.ledger.drop_worker(worker.name)
        if not worker.endpoint:
            return
        self._outbox.forget(worker.endpoint)
        for other in self.records.values():
            if other.state == "up":
                self.send(other.endpoint, ForgetMessage(worker.endpoint))
        self._events.on_worker_gone(worker.name, was_lost)

    # ---- another plan --------------------------------------------------------------------------------------------

    def swap(self, plan: Plan, finish: Callable[[HelixKitError | None], None]) -> None:
        """Start the workers that `plan` needs beyond those that stay; when all are up, put the plan in place.

        A node whose layers change has two workers for that time, on the same GPU. The new one gets as many KV pages as
        fit beside the old one; the swap is refused when these are less than half of those of its profile.

        `finish` is called once: with None, or with what went wrong.
        """
        if self._swap is not None:
            finish(SwapError("another plan is being put in place"))
            return
        incoming: dict[str, WorkerRecord] = {}
        try:
            workers = self.factory.divide(plan)
            for worker in _all_workers(workers):
                record = self.records.get(worker.name)
                if record is None or record.state == "lost" or record.layers != (worker.start, worker.end):
                    incoming[worker.name] = self._start(plan, worker)
        except HelixKitError as error:
            for record in incoming.values():
                record.process.kill()
            finish(error)
            return
        self._swap = _Swap(plan, workers, incoming, finish)
        if not incoming:
            self._complete_swap(self._swap)

    def _on_ready_for_swap(self, swap: _Swap, worker: WorkerRecord) -> None:
        if worker.pages < MIN_SWAP_PAGES_SHARE * worker.spec.num_pages:
            self._fail_swap(
                SwapError(
                    f"worker {worker.name}: only {worker.pages} of its {worker.spec.num_pages} KV pages fit on "
                    f"{worker.spec.device} beside the workers of the plan that is served"
                )
            )
        elif all(w.state == "up" for w in swap.incoming.values()):
            self._complete_swap(swap)

    def _complete_swap(self, swap: _Swap) -> None:
        self._swap = None
        names = [worker.name for worker in _all_workers(swap.workers)]
        staying = set(names) - set(swap.incoming)
        for record in [record for name, record in self.records.items() if name not in staying]:
            self._end_worker(record, "not in the new plan", was_lost=False)
        self.records = {name: swap.incoming.get(name) or self.records[name] for name in names}
        for name, record in swap.incoming.items():
            self.ledger.add_worker(name, record.pages, record.spec.start, record.windows)
        self.plan, self.workers_of = swap.plan, swap.workers
        self._events.on_plan_changed(swap.plan)
        self._events.on_workers_changed()
        swap.finish(None)

    def _fail_swap(self, error: SwapError) -> None:
        assert self._swap is not None
        swap, self._swap = self._swap, None
        for worker in swap.incoming.values():
            worker.state = "lost"
            worker.process.kill()
        swap.finish(error)


def _all_workers(workers_of: NodeWorkers) -> list[NodeWorker]:
    """All workers, node by node."""
    return [worker for workers in workers_of.values() for worker in workers]
