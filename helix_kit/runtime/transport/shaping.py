"""Emulated links: messages are delivered when a link of the given bandwidth and latency would deliver them.

Each link is a queue. A message occupies it for declared bytes / bandwidth, after the message before it, and arrives the
latency later. All links of a machine share its network card, which is such a queue in each direction. A message has
left when both link and card have sent it, and it has arrived when the receiver's card has received it, too. The
declared bytes are those that the emulated model would send, not those of the small stand-in model that really travel.
A message carries the moment at which it is due, from which its receiver counts. What this machine takes to wake up a
process and to handle a message then does not add up along a pipeline.
Token ids and control messages are too small for the receiver's card to matter, so that card ignores them.
"""

from __future__ import annotations

import heapq
import itertools
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress

from helix_kit.runtime.spec import LinkQuality
from helix_kit.runtime.transport.messages import Message, RunMessage, TokensMessage
from helix_kit.runtime.transport.sockets import Inbox, Outbox, PeerLostError

POLL_UNIT_S = 0.001
"""The shortest time that zmq waits."""
MAX_DELAY_S = 0.05
"""Up to so much later than due, a message or a step counts as having come when it was due."""


def moment_of(due_s: float, now_s: float) -> float:
    """When something counts as having come that was due at `due_s` and came now.

    That is when it was due, unless this machine was later than `MAX_DELAY_S`, or `due_s` is of another machine's clock.

    >>> moment_of(10.0, 10.002), moment_of(10.0, 11.0), moment_of(0.0, 11.0)
    (10.0, 11.0, 11.0)
    """
    return due_s if 0 <= now_s - due_s < MAX_DELAY_S else now_s


class Shaper:
    """Sends the messages of one process over emulated links. A thread waits for the time of each message.

    Parameters
    ----------
    make_outbox
        Makes the outbox that the thread sends with.
    links
        Links by their target.
    time_scale
        Factor by which all times are stretched.
    card_bytes_per_s
        Bandwidth of the network card, which all links share.
    """

    def __init__(
        self,
        make_outbox: Callable[[], Outbox],
        links: Mapping[str, LinkQuality],
        time_scale: float,
        card_bytes_per_s: float = math.inf,
    ) -> None:
        self._make_outbox, self._scale = make_outbox, time_scale
        self._links = dict(links)
        self._free_at_s = dict.fromkeys(links, 0.0)
        self._card_bytes_per_s, self._card_free_at_s = card_bytes_per_s, 0.0
        self._changed = threading.Condition()
        self._due: list[tuple[float, int, Callable[[Outbox], None]]] = []
        self._order = itertools.count()
        self._closed = False
        self.bytes_sent = dict.fromkeys(links, 0.0)
        """Declared bytes sent so far, by target."""
        self._thread = threading.Thread(target=self._run, daemon=True, name="helix-kit-links")
        self._thread.start()

    def send(
        self, target: str, size: float, endpoint: str, message: RunMessage | TokensMessage, ready_s: float = 0.0
    ) -> None:
        """Send a message of `size` declared bytes over the link to `target`.

        `ready_s` is when it was due to be sent, if that is not now.
        """
        link, from_s = self._links[target], moment_of(ready_s, time.monotonic())
        self._card_free_at_s = max(from_s, self._card_free_at_s) + size / self._card_bytes_per_s * self._scale
        link_free_at_s = max(from_s, self._free_at_s[target]) + size / link.bytes_per_s * self._scale
        self._free_at_s[target] = max(link_free_at_s, self._card_free_at_s)
        self.bytes_sent[target] += size
        message.due_s = self._free_at_s[target] + link.latency_s * self._scale

        def deliver(outbox: Outbox) -> None:
            with suppress(PeerLostError):
                outbox.send(endpoint, message)

        self._at(message.due_s, deliver)

    def forget(self, endpoint: str) -> None:
        """Close the connection to a peer that is gone."""
        self._at(0.0, lambda outbox: outbox.forget(endpoint))

    def close(self) -> None:
        """Stop; messages whose time has not come are dropped."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _at(self, due: float, action: Callable[[Outbox], None]) -> None:
        with self._changed:
            entry = (due, next(self._order), action)
            heapq.heappush(self._due, entry)
            # The thread waits for the earliest message. Waking it up for a later one would cost more than the message.
            if self._due[0] is entry:
                self._changed.notify()

    def _run(self) -> None:
        outbox = self._make_outbox()
        while True:
            actions = []
            with self._changed:
                while not self._closed and (not self._due or self._due[0][0] > time.monotonic()):
                    self._changed.wait(self._due[0][0] - time.monotonic() if self._due else None)
                if self._closed:
                    break
                now_s = time.monotonic()
                while self._due and self._due[0][0] <= now_s:
                    actions.append(heapq.heappop(self._due)[2])
            for action in actions:
                action(outbox)
        outbox.flush_and_close(0)


class CardInbox:
    """An inbox behind an emulated network card, which delays hidden states. Other messages arrive at once.

    Parameters
    ----------
    inbox
        Receives the messages.
    card_bytes_per_s
        Bandwidth of the card.
    bytes_per_token
        Declared size of one row of hidden states.
    time_scale
        Factor by which all times are stretched.
    """

    def __init__(self, inbox: Inbox, card_bytes_per_s: float, bytes_per_token: float, time_scale: float) -> None:
        self.inner = inbox
        self._s_per_row = bytes_per_token / card_bytes_per_s * time_scale
        self._free_at_s = 0.0
        self._held: deque[tuple[float, Message]] = deque()

    def receive(self, timeout_s: float = 0.0) -> list[Message]:
        """Messages that have passed the card; waits like `Inbox.receive`."""
        if self._held:
            wait_s = max(0.0, self._held[0][0] - time.monotonic())
            if wait_s < min(timeout_s, POLL_UNIT_S):
                # zmq waits for whole milliseconds, which would be a hundredth of an emulated step.
                time.sleep(wait_s)
                wait_s = 0.0
            timeout_s = min(timeout_s, wait_s)
        arrived = self.inner.receive(timeout_s)
        now = time.monotonic()
        ready = []
        for message in arrived:
            if not isinstance(message, RunMessage) or message.dtype == "int32":
                ready.append(message)
                continue
            # The sender's card and the link have already taken the time of this message. It is late here only if
            # messages of other senders occupy the card, too.
            came_s = moment_of(message.due_s, now)
            self._free_at_s = message.due_s = max(came_s, self._free_at_s + message.shape[0] * self._s_per_row)
            self._held.append((self._free_at_s, message))
        while self._held and self._held[0][0] <= now:
            ready.append(self._held.popleft()[1])
        return ready
