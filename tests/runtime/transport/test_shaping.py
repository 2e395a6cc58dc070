"""Emulated links and network cards delay messages by as much as their bandwidth and latency say."""

from __future__ import annotations

import time

import pytest

zmq = pytest.importorskip("zmq")

from helix_kit.runtime.spec import LinkQuality  # noqa: E402
from helix_kit.runtime.transport.messages import RunMessage, SampledToken, TokensMessage, WorkItem  # noqa: E402
from helix_kit.runtime.transport.shaping import CardInbox, Shaper  # noqa: E402
from helix_kit.runtime.transport.sockets import Inbox, Outbox  # noqa: E402

KEY = b"k" * 16


def tokens_of(request: int) -> TokensMessage:
    return TokensMessage("a", 0, [SampledToken(request, 0, 0, 5)])


def test_messages_take_bandwidth_and_latency() -> None:
    context: zmq.Context = zmq.Context()
    inbox = Inbox(context, KEY)
    # 1 kB/s and 20 ms, stretched by 2; the other link is idle and must not wait for this one.
    shaper = Shaper(
        lambda: Outbox(context, KEY), {"far": LinkQuality(1000.0, 0.02), "near": LinkQuality(1e9, 0.0)}, 2.0
    )
    start = time.monotonic()
    for number in range(3):
        shaper.send("far", 50.0, inbox.endpoint, tokens_of(number))
    shaper.send("near", 50.0, inbox.endpoint, tokens_of(9))
    arrived: dict[int, float] = {}
    while len(arrived) < 4:
        for message in inbox.receive(0.01):
            arrived[message.tokens[0].request] = time.monotonic() - start
        assert time.monotonic() - start < 60
    assert list(arrived) == [9, 0, 1, 2]
    for number in range(3):
        expected = 0.1 * (number + 1) + 0.04
        assert expected <= arrived[number]
    assert shaper.bytes_sent == {"far": 150.0, "near": 50.0}
    shaper.close()
    inbox.close()
    context.term()


def timed_arrivals(start_s: float, shapers: list[Shaper], receive, expected: int) -> dict[int, float]:
    """Seconds from `start_s` until the first row of each message, by its request."""
    arrived: dict[int, float] = {}
    while len(arrived) < expected:
        for message in receive(0.01):
            arrived[message.items[0].request] = time.monotonic() - start_s
        assert time.monotonic() - start_s < 60
    for shaper in shapers:
        shaper.close()
    return arrived


def send_rows(shaper: Shaper, target: str, endpoint: str, request: int) -> None:
    """Ten rows of 10 declared bytes each."""
    item = WorkItem(request, 0, 0, 10, True)
    shaper.send(target, 100.0, endpoint, RunMessage([item], "float32", (10, 2), memoryview(bytes(80))))


def test_a_message_counts_from_when_it_was_due_to_be_sent() -> None:
    """A machine that comes 20 ms late to sending adds nothing to the time of the link; after a pause, now counts."""
    context: zmq.Context = zmq.Context()
    inbox = Inbox(context, KEY)
    shaper = Shaper(lambda: Outbox(context, KEY), {"far": LinkQuality(1000.0, 0.02)}, 1.0)
    now_s = time.monotonic()
    shaper.send("far", 50.0, inbox.endpoint, tokens_of(0), now_s - 0.02)
    shaper.send("far", 50.0, inbox.endpoint, tokens_of(1), now_s - 0.02)
    arrived: list[TokensMessage] = []
    while len(arrived) < 2:
        arrived += inbox.receive(0.01)
        assert time.monotonic() - now_s < 60
    assert [m.due_s - now_s for m in arrived] == pytest.approx([-0.02 + 0.05 + 0.02, -0.02 + 0.1 + 0.02], abs=1e-6)
    late = tokens_of(2)
    shaper.send("far", 50.0, inbox.endpoint, late, now_s - 10.0)
    assert late.due_s >= now_s + 0.05 + 0.02
    shaper.close()
    inbox.close()
    context.term()


NARROW, WIDE = 1000.0, 1e9
"""Bandwidth of a card as wide as one link, and of a card so wide that links do not notice it."""


def test_links_of_one_machine_share_its_card() -> None:
    """Two links at once, each as wide as the card: twice the time. With a wide card neither slows the other."""
    context: zmq.Context = zmq.Context()
    inbox = Inbox(context, KEY)
    links = {"x": LinkQuality(1000.0, 0.0), "y": LinkQuality(1000.0, 0.0)}
    shapers = [Shaper(lambda: Outbox(context, KEY), links, 1.0, card) for card in (NARROW, WIDE)]
    start_s = time.monotonic()
    for which, shaper in enumerate(shapers):
        for number, target in enumerate("xy"):
            send_rows(shaper, target, inbox.endpoint, 10 * which + number)
    arrived = timed_arrivals(start_s, shapers, inbox.receive, 4)
    assert arrived[0] >= 0.1 and arrived[1] >= 0.2
    assert min(arrived[10], arrived[11]) >= 0.1 and max(arrived[10], arrived[11]) < arrived[1]
    inbox.close()
    context.term()


def test_senders_to_one_machine_share_its_card() -> None:
    """Two machines send to a third at once; what arrives one after the other is not slowed down."""
    context: zmq.Context = zmq.Context()
    inboxes = [Inbox(context, KEY) for _ in range(2)]
    behind = [CardInbox(inbox, card, 10.0, 1.0) for inbox, card in zip(inboxes, (NARROW, WIDE), strict=True)]
    shapers = [Shaper(lambda: Outbox(context, KEY), {"z": LinkQuality(1000.0, 0.0)}, 1.0) for _ in range(4)]
    start_s = time.monotonic()
    for which, inbox in enumerate(inboxes):
        for number in range(2):
            send_rows(shapers[2 * which + number], "z", inbox.endpoint, 10 * which + number)
        send_rows(shapers[2 * which], "z", inbox.endpoint, 10 * which + 2)  # on its link from 0.1 to 0.2 s

    def receive(timeout_s: float) -> list:
        return [message for card in behind for message in card.receive(timeout_s)]

    arrived = timed_arrivals(start_s, shapers, receive, 6)
    narrow, wide = (sorted(at for request, at in arrived.items() if request // 10 == which) for which in range(2))
    assert all(due <= at for due, at in zip((0.1, 0.2, 0.3), narrow, strict=True))
    assert all(due <= at for due, at in zip((0.1, 0.1, 0.2), wide, strict=True))
    assert wide[1] < narrow[1] and wide[2] < narrow[2]
    for inbox in inboxes:
        inbox.close()
    context.term()
