"""Links as slow as they are said to be: messages leave when a link of that bandwidth and latency would deliver them.

Each link is a queue: a message takes its declared bytes / bandwidth after the one before it, and arrives its latency
later. All links of a machine share its network card, which is such a queue in each direction: a message has left when
both link and card are through with it, and is there when the receiver's card is, too. Declared are the bytes that the
emulated model would send, not those of the stand-in that really travel. Token ids and words between workers and
coordinator are too small for its card to matter on their way in, so that is left out.
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

from helix_kit.runtime.transport.messages import Message, RunMessage
from helix_kit.runtime.transport.sockets import Inbox, Outbox, PeerLostError

LinkQuality = tuple[float, float]
"""Bytes/s and latency in s, both as emulated."""


class Shaper:
    """Sends for one process; a thread of its own waits for each message's time.

    `card_bytes_per_s` is the bandwidth that all its links share.
    """

    def __init__(
        self,
        make_outbox: Callable[[], Outbox],
        links: Mapping[str, LinkQuality],
        time_scale: float,
        card_bytes_per_s: float = math.inf,
    ) -> None:
        self._make_outbox, self._links, self._scale = make_outbox, dict(links), time_scale
        self._free_at = dict.fromkeys(links, 0.0)
        self._card_bytes_per_s, self._card_free_at = card_bytes_per_s, 0.0
        self._changed = threading.Condition()
        self._due: list[tuple[float, int, Callable[[Outbox], None]]] = []
        self._order = itertools.count()
        self._closed = False
        self.bytes_sent = dict.fromkeys(links, 0.0)
        """Declared bytes by target."""
        self._thread = threading.Thread(target=self._run, daemon=True, name="helix-kit-links")
        self._thread.start()

    def send(self, target: str, size: float, endpoint: str, message: Message) -> None:
        """Send a message of `size` declared bytes over the link to `target`."""
        bytes_per_s, latency_s = self._links[target]
        now = time.monotonic()
        self._card_free_at = max(now, self._card_free_at) + size / self._card_bytes_per_s * self._scale
        through_link = max(now, self._free_at[target]) + size / bytes_per_s * self._scale
        self._free_at[target] = max(through_link, self._card_free_at)
        self.bytes_sent[target] += size

        def deliver(outbox: Outbox) -> None:
            with suppress(PeerLostError):
                outbox.send(endpoint, message)

        self._at(self._free_at[target] + latency_s * self._scale, deliver)

    def forget(self, endpoint: str) -> None:
        """Drop a dead peer."""
        self._at(0.0, lambda outbox: outbox.forget(endpoint))

    def close(self) -> None:
        """Send nothing any more."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _at(self, due: float, action: Callable[[Outbox], None]) -> None:
        with self._changed:
            heapq.heappush(self._due, (due, next(self._order), action))
            self._changed.notify()

    def _run(self) -> None:
        outbox = self._make_outbox()
        while True:
            with self._changed:
                while not self._closed and (not self._due or self._due[0][0] > time.monotonic()):
                    self._changed.wait(self._due[0][0] - time.monotonic() if self._due else None)
                if self._closed:
                    break
                _, _, action = heapq.heappop(self._due)
            action(outbox)
        outbox.flush_and_close(0)


class CardInbox:
    """An inbox behind a network card: rows are there when the card has let them through, other words at once."""

    def __init__(self, inbox: Inbox, card_bytes_per_s: float, bytes_per_token: float, time_scale: float) -> None:
        self.inner = inbox
        self._s_per_row = bytes_per_token / card_bytes_per_s * time_scale
        self._free_at = 0.0
        self._held: deque[tuple[float, Message]] = deque()

    def receive(self, timeout_s: float = 0.0) -> list[Message]:
        """As `Inbox.receive`."""
        if self._held:
            timeout_s = min(timeout_s, max(0.0, self._held[0][0] - time.monotonic()))
        arrived = self.inner.receive(timeout_s)
        now = time.monotonic()
        ready = []
        for message in arrived:
            if not isinstance(message, RunMessage) or message.dtype == "int32":
                ready.append(message)
                continue
            # The sender's card and the link have taken its time already; it is late only when others come, too.
            took = message.shape[0] * self._s_per_row
            self._free_at = max(now, self._free_at + took)
            self._held.append((self._free_at, message))
        while self._held and self._held[0][0] <= now:
            ready.append(self._held.popleft()[1])
        return ready
