"""Address and keys of an engine."""

from __future__ import annotations

import pytest

zmq = pytest.importorskip("zmq")

from helix_kit.runtime.connection import Connection  # noqa: E402
from helix_kit.runtime.transport.messages import StopMessage  # noqa: E402


@pytest.mark.parametrize(
    ("host", "encrypt", "is_encrypted"),
    [("127.0.0.1", False, False), ("localhost", False, False), ("127.0.0.1", True, True), ("10.0.0.5", False, True)],
)
def test_sockets_that_others_can_reach_are_encrypted(host: str, encrypt: bool, is_encrypted: bool) -> None:
    assert (Connection.fresh(host, encrypt=encrypt).curve is not None) == is_encrypted


@pytest.mark.parametrize("encrypt", [False, True])
def test_messages_of_another_engine_are_not_received(encrypt: bool) -> None:
    ours, other = (Connection.fresh("127.0.0.1", encrypt=encrypt) for _ in range(2))
    assert ours.key != other.key
    context = zmq.Context()
    inbox = ours.open_inbox(context)
    outboxes = [connection.open_outbox(context) for connection in (other, ours)]
    for outbox in outboxes:
        outbox.send(inbox.endpoint, StopMessage())
    received = inbox.receive(5.0)
    while not received:
        received = inbox.receive(5.0)
    assert received == [StopMessage()]
    for outbox in outboxes:
        outbox.flush_and_close(0)
    inbox.close()
    context.term()
