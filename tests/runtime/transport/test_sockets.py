"""Sockets deliver messages in order, and drop and count what is not of this run."""

from __future__ import annotations

import select
import time

import pytest

zmq = pytest.importorskip("zmq")

from helix_kit.runtime.transport.messages import (  # noqa: E402
    ForgetMessage,
    FreeMessage,
    RequestEpoch,
    RunMessage,
    StopMessage,
    WorkItem,
)
from helix_kit.runtime.transport.sockets import CurveKeys, Inbox, Outbox  # noqa: E402
from helix_kit.runtime.transport.wire import encode  # noqa: E402

KEY = b"k" * 16


@pytest.fixture
def context():
    made = zmq.Context()
    yield made
    made.destroy(linger=0)


def receive(inbox: Inbox, count: int, timeout_s: float = 5.0) -> list:
    found: list = []
    end = time.monotonic() + timeout_s
    while len(found) < count and time.monotonic() < end:
        found += inbox.receive(0.05)
    return found


@pytest.mark.parametrize("rows", [1, 5000])  # in the header, and in a frame of its own
def test_a_tensor_of_any_size_arrives(context, rows: int) -> None:
    inbox, outbox = Inbox(context, KEY), Outbox(context, KEY)
    sent = RunMessage.of_token_ids([WorkItem(1, 0, 0, rows, True)], [66051] * rows)
    outbox.send(inbox.endpoint, sent)
    assert receive(inbox, 1) == [sent]
    outbox.flush_and_close(0)
    inbox.close()


def test_bad_messages_are_dropped_and_counted(context) -> None:
    inbox = Inbox(context, KEY)
    stranger = context.socket(zmq.PUSH)
    stranger.connect(inbox.endpoint)
    stranger.send_multipart([b"\xc1 garbage", b""])
    stranger.send(b"one frame")
    stranger.send_multipart([*encode(StopMessage(), b"another run's key"), b""])
    stranger.send_multipart(encode(StopMessage(), KEY))
    assert receive(inbox, 1) == [StopMessage()]
    assert (inbox.dropped.malformed, inbox.dropped.foreign) == (2, 1)
    assert inbox.dropped.reasons == ["not a message of helix_kit"] * 2
    inbox.close()
    stranger.close(0)


def test_a_descriptor_that_is_readable_for_another_reason_brings_no_message(context) -> None:
    inbox, outbox = Inbox(context, KEY), Outbox(context, KEY)
    assert inbox.receive(is_readable=True) == []
    sent = [FreeMessage([RequestEpoch(n, 0)]) for n in range(3)]
    for message in sent:
        outbox.send(inbox.endpoint, message)
    poller, found, end_s = select.poll(), [], time.monotonic() + 5
    poller.register(inbox, select.POLLIN)
    while len(found) < 3 and time.monotonic() < end_s:
        if poller.poll(50):
            found += inbox.receive(is_readable=True)
    assert found == sent and inbox.receive(is_readable=True) == []
    outbox.flush_and_close(0)
    inbox.close()


def test_frames_that_no_header_tells_of_are_dropped_and_counted(context) -> None:
    """As are headers whose tensor is missing; what comes behind them is read as usual."""
    inbox, sender = Inbox(context, KEY), context.socket(zmq.PUSH)
    sender.connect(inbox.endpoint)
    [small] = encode(RunMessage.of_token_ids([WorkItem(1, 0, 0, 2, True)], [7, 8]), KEY)
    large = encode(RunMessage.of_token_ids([WorkItem(1, 0, 0, 5000, True)], [7] * 5000), KEY)
    sender.send_multipart([small, b"behind it", b"and this"])
    sender.send(large[0])
    sender.send_multipart([*large, b"behind it"])
    sender.send_multipart(large)
    sender.send_multipart(encode(StopMessage(), KEY))
    assert [type(message) for message in receive(inbox, 3)] == [RunMessage, RunMessage, StopMessage]
    assert inbox.dropped.malformed == 3 and inbox.dropped.foreign == 0
    inbox.close()
    sender.close(0)


def test_encrypted_sockets_shut_others_out(context) -> None:
    keys, others = CurveKeys.generate(), CurveKeys.generate()
    inbox = Inbox(context, KEY, keys=keys)
    outboxes = {name: Outbox(context, KEY, keys=k) for name, k in (("plain", None), ("wrong", others), ("ours", keys))}
    for name, outbox in outboxes.items():
        outbox.send(inbox.endpoint, ForgetMessage(name))
    assert receive(inbox, 1) == [ForgetMessage("ours")]
    end_s = time.monotonic() + 5
    while inbox.dropped.foreign < 2 and time.monotonic() < end_s:  # both strangers were turned away, and counted
        assert inbox.receive(0.1) == []
    assert inbox.dropped.foreign >= 2
    for outbox in outboxes.values():
        outbox.flush_and_close(0)
    inbox.close()


@pytest.mark.parametrize("keys", [None, CurveKeys.generate()], ids=["without keys", "with keys of another run"])
def test_each_stranger_at_an_encrypted_socket_is_counted(context, keys: CurveKeys | None) -> None:
    """Nothing arrives from the stranger, the count says so, and messages with the right keys still arrive."""
    ours = CurveKeys.generate()
    inbox = Inbox(context, KEY, keys=ours)
    stranger, friend = Outbox(context, KEY, keys=keys), Outbox(context, KEY, keys=ours)
    friend.send(inbox.endpoint, StopMessage())
    assert receive(inbox, 1) == [StopMessage()]
    assert inbox.receive(0.3) == [] and inbox.dropped.foreign == 0
    stranger.send(inbox.endpoint, StopMessage())
    end_s = time.monotonic() + 5
    while not inbox.dropped.foreign and time.monotonic() < end_s:
        assert inbox.receive(0.1) == []
    assert inbox.dropped.foreign >= 1
    friend.send(inbox.endpoint, StopMessage())
    assert receive(inbox, 1) == [StopMessage()]
    for end in (stranger, friend):
        end.flush_and_close(0)
    inbox.close()


def test_order_is_kept_and_a_forgotten_peer_gets_nothing(context) -> None:
    inbox, outbox = Inbox(context, KEY), Outbox(context, KEY)
    sent = [FreeMessage([RequestEpoch(n, 0)]) for n in range(50)]
    for message in sent:
        outbox.send(inbox.endpoint, message)
    assert receive(inbox, 50) == sent
    endpoint = inbox.endpoint
    inbox.close()
    outbox.send(endpoint, StopMessage())
    outbox.forget(endpoint)
    assert outbox._sockets == {}
    outbox.flush_and_close()
