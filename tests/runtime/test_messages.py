"""The decoder of messages takes anything and never breaks; transport drops and counts what is not ours."""

from __future__ import annotations

import time

import msgpack
import pytest
import zmq
from hypothesis import example, given
from hypothesis import strategies as st

from helix_kit.runtime.transport import messages
from helix_kit.runtime.transport.messages import ForeignError, MalformedError, WorkItem
from helix_kit.runtime.transport.sockets import CurveKeys, Inbox, Outbox

KEY = b"k" * 16
ROUTE = [["a", 0, 3, "tcp://127.0.0.1:1"], ["b", 3, 6, "tcp://127.0.0.1:2"]]
GOOD = WorkItem(1, 0, 0, 2, True, ROUTE, [0.0, 0, 1.0, 7])


def run_message(
    item: WorkItem = GOOD, *, dtype: str = "int32", shape: tuple[int, ...] = (2,), tensor: bytes = b"\0" * 8
):
    return [messages.pack("run", KEY, {"items": [item.pack()]}, dtype=dtype, shape=shape), tensor]


def test_round_trip() -> None:
    message = messages.unpack(run_message(), KEY)
    assert message.body["items"] == [GOOD]
    assert (message.dtype, message.shape, bytes(message.tensor or b"")) == ("int32", (2,), b"\0" * 8)


json_like = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=5),
    max_leaves=12,
)


@given(st.lists(st.binary(max_size=200), max_size=4))
@example([b"", b""])
@example([msgpack.packb([1, 2]), b""])
@example([msgpack.packb({b"kind": 1}), b""])
@example([msgpack.packb([1, KEY, "", [], b"", {}])])
@example([msgpack.packb(["stop", KEY, "", [], b"", []])])
def test_any_bytes_are_refused(frames: list[bytes]) -> None:
    with pytest.raises((MalformedError, ForeignError)):
        messages.unpack(frames, KEY)


@given(
    kind=st.sampled_from(["run", "free", "forget", "stop", "ready", "tokens", "freed", "beat", "failed", "x"]),
    body=st.dictionaries(
        st.sampled_from(["items", "rows", "node", "generation", "endpoint", "pages", "pid", "stats", "reason", "y"]),
        json_like,
        max_size=6,
    ),
    dtype=json_like,
    shape=json_like,
    tensor=st.binary(max_size=64),
)
def test_any_well_formed_header_is_checked(kind, body, dtype, shape, tensor) -> None:
    """Whatever passes has the types that its readers rely on; nothing else than the two refusals is raised."""
    try:
        header = msgpack.packb([kind, KEY, dtype, shape, b"", body])
    except (OverflowError, ValueError):
        return
    try:
        message = messages.unpack([header, tensor], KEY)
    except MalformedError:
        return
    assert set(message.body) <= set(body)
    for row in message.body.get("rows", []):
        assert all(type(value) is int and value >= 0 for value in row)


change = st.sampled_from(
    [
        (0, -1), (0, "1"), (0, True), (1, None), (2, -1), (2, 1 << 30), (3, 0), (3, 3), (4, 1), (4, None),
        (5, []), (5, [["a", 0, 3]]), (5, [["a", 1, 3, "tcp://x"]]), (5, [["a", 0, 0, "tcp://x"]]),
        (5, [["a", 0, 3, "ipc:///etc/passwd"]]), (5, [["a", 0, 3, "tcp://x"], ["b", 4, 6, "tcp://x"]]),
        (6, [0.0, 0, 1.0]), (6, [float("nan"), 0, 1.0, 0]), (6, [0.0, -1, 1.0, 0]), (6, [0.0, 0, 0.0, 0]),
        (6, [0.0, 0, 1.0, -1]), (6, [0.0, 0, 1.0, 1 << 63]),
    ]
)  # fmt: skip


@given(change)
def test_one_wrong_field_is_enough(at: tuple[int, object]) -> None:
    fields = GOOD.pack()
    fields[at[0]] = at[1]
    header = messages.pack("run", KEY, {"items": [fields]}, dtype="int32", shape=(2,))
    with pytest.raises(MalformedError):
        messages.unpack([header, b"\0" * 8], KEY)


@pytest.mark.parametrize(
    ("dtype", "shape", "tensor"),
    [
        ("int32", (2,), b"\0" * 7),
        ("int32", (3,), b"\0" * 12),
        ("int64", (2,), b"\0" * 16),
        ("float32", (2, 1 << 29), b"\0" * 8),
        ("float32", (2, 2, 1), b"\0" * 16),
        ("float32", (), b"\0" * 4),
        ("int32", (2,), b""),
    ],
)
def test_tensors_must_have_the_size_that_is_said(dtype: str, shape: tuple[int, ...], tensor: bytes) -> None:
    with pytest.raises(MalformedError):
        messages.unpack(run_message(dtype=dtype, shape=shape, tensor=tensor), KEY)


def in_header(tensor: object) -> bytes:
    return messages.pack("run", KEY, {"items": [GOOD.pack()]}, dtype="int32", shape=(2,), tensor=tensor)


def test_a_small_tensor_may_lie_in_the_header() -> None:
    message = messages.unpack([in_header(b"\1" * 8)], KEY)
    assert message.body == {"items": [GOOD]} and bytes(message.tensor or b"") == b"\1" * 8


@pytest.mark.parametrize(
    "frames",
    [[in_header(b"\1" * 7)], [in_header("\1" * 8)], [in_header([1] * 8)], [in_header(b"\1" * 8), b"\1" * 8]],
    ids=["size", "text", "numbers", "twice"],
)
def test_a_tensor_in_the_header_is_checked_like_one_behind_it(frames: list[bytes]) -> None:
    with pytest.raises(MalformedError):
        messages.unpack(frames, KEY)


@pytest.mark.parametrize("rows", [1, 5000])  # in the header, and in a frame of its own
def test_a_tensor_of_any_size_arrives(context, rows: int) -> None:
    inbox, outbox = Inbox(context, KEY), Outbox(context, KEY)
    tensor = bytes(range(4)) * rows
    item = WorkItem(1, 0, 0, rows, True)
    outbox.send(inbox.endpoint, "run", {"items": [item.pack()]}, tensor=tensor, dtype="int32", shape=(rows,))
    [message] = receive(inbox, 1)
    assert message.body["items"] == [item] and bytes(message.tensor or b"") == tensor
    outbox.flush_and_close(0)
    inbox.close()


def test_too_large_a_header_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "MAX_HEADER_BYTES", 100)
    with pytest.raises(MalformedError, match="too large"):
        messages.unpack(run_message(), KEY)


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


def test_bad_messages_are_dropped_and_counted(context) -> None:
    inbox = Inbox(context, KEY)
    stranger = context.socket(zmq.PUSH)
    stranger.connect(inbox.endpoint)
    stranger.send_multipart([b"\xc1 garbage", b""])
    stranger.send(b"one frame")
    stranger.send_multipart([messages.pack("stop", b"another run's key", {}), b""])
    stranger.send_multipart(run_message())
    assert [m.kind for m in receive(inbox, 1)] == ["run"]
    assert (inbox.dropped.malformed, inbox.dropped.foreign) == (2, 1)
    inbox.close()
    stranger.close(0)


def test_encrypted_sockets_shut_others_out(context) -> None:
    keys, others = CurveKeys.generate(), CurveKeys.generate()
    inbox = Inbox(context, KEY, keys=keys)
    plain, wrong, ours = (Outbox(context, KEY, keys=k) for k in (None, others, keys))
    for outbox in (plain, wrong, ours):
        outbox.send(
            inbox.endpoint, "forget", {"endpoint": {None: "plain", others: "wrong", keys: "ours"}[outbox._keys]}
        )
    assert [m.body["endpoint"] for m in receive(inbox, 1)] == ["ours"]
    end_s = time.monotonic() + 5
    while inbox.dropped.foreign < 2 and time.monotonic() < end_s:  # both strangers were turned away, and counted
        assert inbox.receive(0.1) == []
    assert inbox.dropped.foreign >= 2
    for end in (plain, wrong, ours):
        end.flush_and_close(0)
    inbox.close()


@pytest.mark.parametrize("keys", [None, CurveKeys.generate()])
def test_each_stranger_at_an_encrypted_socket_is_counted(context, keys: CurveKeys | None) -> None:
    """Without keys and with another run's: nothing arrives, the count says so, and friends are still served."""
    ours = CurveKeys.generate()
    inbox = Inbox(context, KEY, keys=ours)
    stranger, friend = Outbox(context, KEY, keys=keys), Outbox(context, KEY, keys=ours)
    friend.send(inbox.endpoint, "stop", {})
    assert [m.kind for m in receive(inbox, 1)] == ["stop"]
    assert inbox.receive(0.3) == [] and inbox.dropped.foreign == 0
    stranger.send(inbox.endpoint, "stop", {})
    end_s = time.monotonic() + 5
    while not inbox.dropped.foreign and time.monotonic() < end_s:
        assert inbox.receive(0.1) == []
    assert inbox.dropped.foreign >= 1
    friend.send(inbox.endpoint, "stop", {})
    assert [m.kind for m in receive(inbox, 1)] == ["stop"]
    for end in (stranger, friend):
        end.flush_and_close(0)
    inbox.close()


def test_order_is_kept_and_a_forgotten_peer_gets_nothing(context) -> None:
    inbox, outbox = Inbox(context, KEY), Outbox(context, KEY)
    for n in range(50):
        outbox.send(inbox.endpoint, "free", {"rows": [[n, 0]]})
    assert [m.body["rows"][0][0] for m in receive(inbox, 50)] == list(range(50))
    endpoint = inbox.endpoint
    inbox.close()
    outbox.send(endpoint, "stop", {})
    outbox.forget(endpoint)
    assert outbox._sockets == {}
    outbox.flush_and_close()
