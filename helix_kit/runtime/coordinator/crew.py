"""The workers of an engine: started, watched, replaced when they are lost, exchanged when the plan changes.

All of it runs in the coordinator's thread. What the loss of a worker means for requests is the coordinator's matter:
it is told by `on_gone` (this worker holds nothing any more, and whether it was lost or sent away) and `on_change` (the
workers that serve are others).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from helix_kit.errors import HelixKitError
from helix_kit.placement.plan import Plan
from helix_kit.runtime.coordinator.admission import PageLedger
from helix_kit.runtime.coordinator.members import Launcher, Member
from helix_kit.runtime.parts import Part, Parts, covering, node_of
from helix_kit.runtime.spec import WorkerSpec
from helix_kit.runtime.transport.messages import (
    FailedMessage,
    ForgetMessage,
    FromWorker,
    HeartbeatMessage,
    Message,
    ReadyMessage,
    StopMessage,
)
from helix_kit.runtime.transport.sockets import Outbox, PeerLostError

log = logging.getLogger(__name__)

LEAST_PAGES_SHARE = 0.5
"""Of the KV pages that its profile promises, with which a worker may come in by a swap: it keeps them for good."""
STALL_S = 0.5
"""The coordinator looks several times a second; a longer gap means that it was held up."""


class SwapError(HelixKitError):
    """A new plan could not be put in place; the old one goes on."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds after which something is given up."""

    start_s: float = 180.0
    """From a worker's start to its first word."""
    silence_s: float = 2.5
    """From a worker's last heartbeat until it counts as lost (frozen, or cut off)."""


@dataclass(slots=True)
class Swap:
    """A plan on its way in: its new workers load while the old plan serves."""

    plan: Plan
    incoming: dict[str, Member]
    finish: Callable[[HelixKitError | None], None]


class Crew:
    """The workers of the nodes of a plan; `divide` says which there are (a node with several GPUs has several)."""

    def __init__(
        self,
        plan: Plan,
        launcher: Launcher,
        make_spec: Callable[[Plan, Part, int], WorkerSpec],
        divide: Callable[[Plan], Parts],
        outbox: Outbox,
        *,
        timeouts: Timeouts,
        restart_workers: bool,
        clock: Callable[[], float],
        on_gone: Callable[[str, bool], None],
        on_change: Callable[[], None],
        on_swap: Callable[[Plan], None],
    ) -> None:
        self.plan = plan
        self.parts = divide(plan)
        self._launcher, self._make_spec, self._divide, self._outbox = launcher, make_spec, divide, outbox
        self._timeouts, self._restart_workers = timeouts, restart_workers
        self._clock, self._on_gone, self._on_change, self._on_swap = clock, on_gone, on_change, on_swap
        self.members: dict[str, Member] = {}
        """By name of the worker."""
        self.ledger = PageLedger()
        self.losses: list[tuple[float, str, str]] = []
        """(time, node, reason) of every worker lost."""
        self.detection_s: list[float] = []
        """Seconds between the last sign of life of each lost worker and its loss being noticed."""
        self.ready = threading.Event()
        """Set when the first workers are all up, or one of them has failed."""
        self.failed_start: str | None = None
        self._swap: Swap | None = None
        self._generation = 0
        self._checked_s = time.monotonic()

    # ---- state ---------------------------------------------------------------------------------------------------

    def is_alive(self, node: str) -> bool:
        """Whether all workers of the node are up."""
        members = [self.members.get(part.worker) for part in self.parts.get(node, ())]
        return bool(members) and all(member is not None and member.state == "up" for member in members)

    def has_pages(self, node: str, tokens: int, num_layers: int, *, empty: bool = False) -> bool:
        """Whether `tokens` of one request fit into the node's last `num_layers` layers: now, or when it is `empty`.

        Requests leave a node after its last layer, so the number says which layers they are.
        """
        parts = self.parts.get(node, ())
        fits = self.ledger.can_hold if empty else self.ledger.has_room
        stages = covering(parts, parts[-1].end - num_layers, parts[-1].end) if parts else []
        return bool(stages) and all(fits(stage.node, tokens, stage.end - stage.start) for stage in stages)

    @property
    def is_starting(self) -> bool:
        """Whether a worker is coming up."""
        return any(member.state == "starting" for member in self.members.values())

    @property
    def lost(self) -> str:
        """The lost workers and why, for messages."""
        return ", ".join(f"{m.node} ({m.reason})" for m in self.members.values() if m.state == "lost")

    def send(self, endpoint: str, message: Message) -> None:
        """Send to a worker. A full queue means a dead peer: its silence is noticed by `check`."""
        try:
            self._outbox.send(endpoint, message)
        except PeerLostError:
            log.debug("%s takes no more messages", endpoint)

    # ---- starting and ending -------------------------------------------------------------------------------------

    def start_all(self) -> None:
        """Start the workers of the plan."""
        for part in _workers(self.parts):
            self.members[part.worker] = self._start(self.plan, part)

    def _start(self, plan: Plan, part: Part) -> Member:
        spec = self._make_spec(plan, part, self._generation)
        self._generation += 1
        process = self._launcher.start(spec)
        now = time.monotonic()
        return Member(spec, process, started_s=now, heard_s=now)

    def restart(self, node: str) -> None:
        """Start new workers for those of the node that were lost."""
        for part in self.parts[node]:
            if self.members[part.worker].state == "lost":
                self.members[part.worker] = self._start(self.plan, part)

    def close(self) -> None:
        """Tell all workers to stop, and end them."""
        if self._swap is not None:
            self._end_swap(SwapError("the engine was closed"))
        for member in self.members.values():
            if member.state == "up":
                self.send(member.endpoint, StopMessage())
        self._outbox.flush_and_close()
        self._launcher.close()

    # ---- watching ------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Notice workers that have ended, gone silent, or do not come up."""
        now = time.monotonic()
        stalled_s, self._checked_s = now - self._checked_s, now
        if stalled_s > STALL_S:
            # We were not running ourselves (a busy or suspended machine): that silence is not the workers'.
            for member in self.members.values():
                member.heard_s = min(now, member.heard_s + stalled_s)
        for member in list(self.members.values()):
            if reason := self._trouble(member):
                self._lose(member, reason)
        if self._swap is not None:
            for member in self._swap.incoming.values():
                if reason := self._trouble(member):
                    self._end_swap(SwapError(f"worker {member.node}: {reason}"))
                    break

    def _trouble(self, member: Member) -> str | None:
        now = time.monotonic()
        if member.state == "lost":
            return None
        if not member.process.is_alive():
            return member.reason or "its process ended"
        if member.state == "up" and now - member.heard_s > self._timeouts.silence_s:
            return f"no heartbeat for {now - member.heard_s:.1f} s"
        if member.state == "starting" and now - member.started_s > self._timeouts.start_s:
            return f"not ready within {self._timeouts.start_s:.0f} s"
        return None

    def hear(self, message: Message) -> Member | None:
        """The worker that sent a message; None when it is one that is no more. Words about itself are acted on."""
        if not isinstance(message, FromWorker):
            return None
        node, generation = message.node, message.generation
        member = self.members.get(node)
        if self._swap is not None and (member is None or member.spec.generation != generation):
            member = self._swap.incoming.get(node)
        if member is None or member.spec.generation != generation or member.state == "lost":
            return None
        member.heard_s = time.monotonic()
        if isinstance(message, HeartbeatMessage):
            member.counters, member.reported_s = message.counters, member.heard_s
        elif isinstance(message, ReadyMessage):
            member.state, member.endpoint = "up", message.endpoint
            member.pages, member.pid = message.pages, message.pid
            self._came_up(member)
        elif isinstance(message, FailedMessage):
            member.reason = message.reason
            if self.members.get(node) is member:
                self._lose(member, member.reason)
            else:
                self._end_swap(SwapError(f"worker {node}: {member.reason}"))
        return member

    def _came_up(self, member: Member) -> None:
        if self._swap is not None and self._swap.incoming.get(member.node) is member:
            if member.pages < LEAST_PAGES_SHARE * member.spec.num_pages:
                self._end_swap(
                    SwapError(
                        f"worker {member.node}: only {member.pages} of its {member.spec.num_pages} KV pages fit on "
                        f"{member.spec.device} beside the workers of the plan that serves"
                    )
                )
                return
            if all(m.state == "up" for m in self._swap.incoming.values()):
                self._put_in_place(self._swap)
            return
        self.ledger.add_node(member.node, member.pages)
        # While the first workers come up one by one, there is nothing to route yet.
        if self.ready.is_set() or all(m.state == "up" for m in self.members.values()):
            self._on_change()
            self.ready.set()

    def _lose(self, member: Member, reason: str) -> None:
        was = member.state
        self._retire(member, reason)
        if was == "starting":
            if not self.ready.is_set():
                self.failed_start = f"worker {member.node}: {reason}"
                self.ready.set()
        else:
            log.warning("lost worker %s: %s", member.node, reason)
            self.losses.append((self._clock(), member.node, reason))
            self.detection_s.append(time.monotonic() - member.heard_s)
            if self._restart_workers:
                self.restart(node_of(member.node))
        self._on_change()

    def _retire(self, member: Member, reason: str, *, was_lost: bool = True) -> None:
        """End a worker and let everybody forget it."""
        member.state, member.reason = "lost", reason
        member.process.kill()
        self.ledger.drop_node(member.node)
        if not member.endpoint:
            return
        self._outbox.forget(member.endpoint)
        for other in self.members.values():
            if other.state == "up":
                self.send(other.endpoint, ForgetMessage(member.endpoint))
        self._on_gone(member.node, was_lost)

    # ---- another plan --------------------------------------------------------------------------------------------

    def swap(self, plan: Plan, finish: Callable[[HelixKitError | None], None]) -> None:
        """Start what `plan` needs beyond the workers that stay; when all are up, it takes over.

        Nodes whose layers change have two workers for a while, on a GPU side by side: the new one gets the pages for
        which the other leaves room, and the swap is refused where these are less than half of what it should have.
        `finish` is called with None, or with what went wrong.
        """
        if self._swap is not None:
            finish(SwapError("another plan is being put in place"))
            return
        swap = Swap(plan, {}, finish)
        try:
            for part in _workers(self._divide(plan)):
                member = self.members.get(part.worker)
                span = (part.start, part.end)
                if member is None or member.state == "lost" or (member.spec.start, member.spec.end) != span:
                    swap.incoming[part.worker] = self._start(plan, part)
        except HelixKitError as error:
            for member in swap.incoming.values():
                member.process.kill()
            finish(error)
            return
        self._swap = swap
        if not swap.incoming:
            self._put_in_place(swap)

    def _put_in_place(self, swap: Swap) -> None:
        self._swap = None
        parts = self._divide(swap.plan)
        staying = {part.worker for part in _workers(parts)} - set(swap.incoming)
        leaving = [member for worker, member in self.members.items() if worker not in staying]
        for member in leaving:
            self._retire(member, "not in the new plan", was_lost=False)
        workers = [part.worker for part in _workers(parts)]
        self.members = {worker: swap.incoming.get(worker) or self.members[worker] for worker in workers}
        for worker, member in swap.incoming.items():
            self.ledger.add_node(worker, member.pages)
        self.plan, self.parts = swap.plan, parts
        self._on_swap(swap.plan)
        self._on_change()
        swap.finish(None)

    def _end_swap(self, error: SwapError) -> None:
        assert self._swap is not None
        swap, self._swap = self._swap, None
        for member in swap.incoming.values():
            member.state = "lost"
            member.process.kill()
        swap.finish(error)


def _workers(parts: Parts) -> list[Part]:
    """All workers, node by node."""
    return [part for of_node in parts.values() for part in of_node]
