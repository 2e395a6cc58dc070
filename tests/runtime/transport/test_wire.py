"""`decode` takes any bytes: it returns a message whose fields are valid, or raises one of its two errors."""

from __future__ import annotations

import math
from typing import get_args

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from helix_kit.runtime.transport import messages, wire
from helix_kit.runtime.transport.messages import (
    FailedMessage,
    ForgetMessage,
    FreeMessage,
    HeartbeatMessage,
    LogprobFields,
    ReadyMessage,
    RequestEpoch,
    RouteStage,
    RunMessage,
    SampledToken,
    SamplingFields,
    StartingMessage,
    StopMessage,
    TokensMessage,
    WorkerCounters,
    WorkItem,
)
from helix_kit.runtime.transport.wire import ForeignError, MalformedError, decode, encode

KEY = b"k" * 16
PREFIX = b"helix-kit\0" + KEY
PREFIX_WITH_TENSOR = b"helix-kit\1" + KEY
ROUTE = [["a", 0, 3, "tcp://127.0.0.1:1"], ["b", 3, 6, "tcp://127.0.0.1:2"]]
ITEM = [1, 0, 0, 2, True, ROUTE, [0.0, 0, 1.0, 7]]
TENSOR = b"\1" * 8


def frame(fields: object, *, then_tensor: bool = False) -> bytes:
    """A header of any content behind the right key; `then_tensor`: it says that a tensor follows."""
    return (PREFIX_WITH_TENSOR if then_tensor else PREFIX) + msgspec.msgpack.encode(fields)


def run_frame(
    item: object = ITEM,
    dtype: object = "int32",
    shape: object = (2,),
    tensor: object = TENSOR,
    *,
    then_tensor: bool = False,
) -> bytes:
    return frame(["run", [item], dtype, shape, tensor], then_tensor=then_tensor)


def test_a_message_is_what_its_bytes_say() -> None:
    message = decode([run_frame()], KEY)
    route = [RouteStage("a", 0, 3, "tcp://127.0.0.1:1"), RouteStage("b", 3, 6, "tcp://127.0.0.1:2")]
    assert message == RunMessage(
        [WorkItem(1, 0, 0, 2, True, route, SamplingFields(0.0, 0, 1.0, 7))], "int32", (2,), memoryview(TENSOR)
    )


@pytest.mark.parametrize(
    "message",
    [
        FreeMessage([RequestEpoch(3, 1), RequestEpoch(4, 0)]),
        ForgetMessage("tcp://127.0.0.1:1"),
        StopMessage(),
        StartingMessage("a", 0, "20 of 57 CUDA graphs captured"),
        ReadyMessage("a", 0, "tcp://127.0.0.1:1", 40, 4711, [4711, 4712], [0, 12], "attention sdpa, float32"),
        TokensMessage("a", 2, [SampledToken(3, 1, 17, 99)]),
        TokensMessage("a", 2, [SampledToken(3, 1, 17, 99, LogprobFields(-0.5, 2, [(7, -0.25), (99, -0.5)]))]),
        HeartbeatMessage("a", 2, WorkerCounters(pages_used=3, cpu_s=0.5), {"b": 0.25}),
        FailedMessage("a", 2, "no memory"),
    ],
    ids=lambda message: type(message).__name__,
)
def test_each_kind_arrives_as_it_was_sent(message: messages.Message) -> None:
    assert decode(encode(message, KEY), KEY) == message


def test_an_item_brings_its_tokens_and_all_sampling_fields() -> None:
    fields = SamplingFields(0.5, 3, 0.9, 7, 0.1, 1.0, -1.0, 1.2, ((5, -100.0),), 4, (2, 3), 5, 0, 9)
    item = WorkItem(1, 0, 0, 2, True, None, fields, b"\1\0\0\0" * 3)
    message = RunMessage.of_token_ids([item], [1, 1])
    assert decode(encode(message, KEY), KEY) == message


@pytest.mark.parametrize("token_ids", [b"", b"\1", b"\0" * 4, b"\0" * 9, b"\0" * 16])
def test_an_item_with_another_number_of_tokens_is_refused(token_ids: bytes) -> None:
    with pytest.raises(MalformedError, match="token of each row"):
        decode([run_frame([1, 0, 0, 2, True, ROUTE, [0.0, 0, 1.0, 7], token_ids])], KEY)


def test_a_large_tensor_travels_in_a_frame_of_its_own_and_is_not_copied() -> None:
    ids = list(range(wire.INLINE_BYTES // 4 + 1))
    message = RunMessage.of_token_ids([WorkItem(1, 0, 0, len(ids), True)], ids)
    message.due_s = 7.5
    frames = encode(message, KEY)
    assert len(frames) == 2 and frames[1] is message.tensor
    assert decode(frames, KEY) == message
    small = RunMessage.of_token_ids([WorkItem(1, 0, 0, len(ids) - 1, True)], ids[:-1])
    assert len(encode(small, KEY)) == 1 and decode(encode(small, KEY), KEY).tensor.cast("i").tolist() == ids[:-1]


json_like = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=5),
    max_leaves=12,
)


@given(st.lists(st.binary(max_size=200), max_size=4))
@example([PREFIX])
@example([PREFIX + b"\xc1"])
@example([PREFIX + b"\x91" * 100_000])
@example([PREFIX + b"\xdd\xff\xff\xff\xff"])
@example([PREFIX + b"\x92\xa6forget\xa2\xff\xfe"])  # text that is not UTF-8
@example([frame(["stop"]) + b"\0"])
def test_any_bytes_are_refused(frames: list[bytes]) -> None:
    with pytest.raises((MalformedError, ForeignError)):
        decode(frames, KEY)


KINDS = [kind.__struct_config__.tag for kind in get_args(messages.Message)]


@given(kind=st.sampled_from([*KINDS, "x"]), fields=st.lists(json_like, max_size=6), tensor=st.binary(max_size=64))
@example(kind="free", fields=[[[1, True]]], tensor=b"")
@example(kind="free", fields=[[[1, 1 << 63]]], tensor=b"")
@example(kind="tokens", fields=["a", 0, [[1, 0, 1]]], tensor=b"")
@example(kind="beat", fields=["a", 0, [0] * 12 + [math.inf], {}], tensor=b"")
@example(kind="beat", fields=["a", 0, [0] * 13, {"b": math.nan}], tensor=b"")
@example(kind="beat", fields=["a", 0, [0] * 12, {}], tensor=b"")
@example(kind="beat", fields=["a", 0, [0] * 13, {str(i): 0.0 for i in range(messages.MAX_HOPS + 1)}], tensor=b"")
@example(kind="forget", fields=["t" * (messages.MAX_TEXT + 1)], tensor=b"")
def test_any_well_formed_header_is_checked(kind: str, fields: list, tensor: bytes) -> None:
    """What passes has the types and bounds that its readers rely on; only the two errors are raised."""
    try:
        message = decode([frame([kind, *fields], then_tensor=bool(tensor)), *([tensor] if tensor else [])], KEY)
    except MalformedError:
        return
    numbers = msgspec.to_builtins(message)
    stack = list(numbers) if isinstance(numbers, list) else [numbers]
    while stack:
        value = stack.pop()
        if isinstance(value, list | tuple):
            stack += value
        elif isinstance(value, dict):
            assert len(value) <= messages.MAX_HOPS
            stack += value.values()
        elif type(value) is int:
            assert 0 <= value <= messages.MAX_INT
        elif type(value) is float:
            assert math.isfinite(value)
        elif type(value) is str:
            assert len(value) <= messages.MAX_TEXT
        else:
            raise AssertionError(f"{value!r} passed")


@pytest.mark.parametrize(
    "fields",
    [
        [[[1, True]]],
        [[[1, 1.0]]],
        [[[1, -1]]],
        [[[1, messages.MAX_INT + 1]]],
        [[[1]]],
        [[[1, 2, 3]]],
        [[1, 2]],
        [],
        [[], 1],
        [[[0, 0]] * (messages.MAX_ITEMS + 1)],
    ],
    ids=str,
)
def test_lists_of_requests_are_checked(fields: list) -> None:
    with pytest.raises(MalformedError):
        decode([frame(["free", *fields])], KEY)


change = st.sampled_from(
    [
        (0, -1), (0, "1"), (0, True), (1, None), (2, -1), (2, 1 << 30), (3, 0), (3, 3), (4, 1), (4, None),
        (5, []), (5, [["a", 0, 3]]), (5, [["a", 1, 3, "tcp://x"]]), (5, [["a", 0, 0, "tcp://x"]]),
        (5, [["a", 0, 3, "ipc:///etc/passwd"]]), (5, [["a", 0, 3, "tcp://x"], ["b", 4, 6, "tcp://x"]]),
        (6, [0.0, 0, 1.0]), (6, [float("nan"), 0, 1.0, 0]), (6, [0.0, -1, 1.0, 0]), (6, [0.0, 0, 0.0, 0]),
        (6, [0.0, 0, float("nan"), 0]), (6, [100.5, 0, 1.0, 0]), (6, [0.0, 0, 1.5, 0]),
        (6, [0.0, 0, 1.0, -1]), (6, [0.0, 0, 1.0, 1 << 63]),
    ]
)  # fmt: skip


@given(change)
def test_one_wrong_field_is_enough(at: tuple[int, object]) -> None:
    item = list(ITEM)
    item[at[0]] = at[1]
    with pytest.raises(MalformedError):
        decode([run_frame(item)], KEY)


@pytest.mark.parametrize(
    ("dtype", "shape", "tensor"),
    [
        ("int32", (2,), b"\0" * 7),
        ("int32", (3,), b"\0" * 12),
        ("int64", (2,), b"\0" * 16),
        ("float32", (2, 1 << 29), b"\0" * 8),
        ("float32", (2, 2, 1), b"\0" * 16),
        ("float32", (), b"\0" * 4),
        ("float32", (2, 0), b""),
        ("int32", (2,), b""),
    ],
)
@pytest.mark.parametrize("in_header", [True, False])
def test_tensors_must_have_the_size_that_is_said(dtype: str, shape: tuple, tensor: bytes, in_header: bool) -> None:
    inline = tensor if in_header else b""
    frames = [run_frame(dtype=dtype, shape=shape, tensor=inline, then_tensor=not in_header)]
    with pytest.raises(MalformedError):
        decode(frames if in_header else [*frames, tensor], KEY)


@pytest.mark.parametrize(
    "frames",
    [
        [run_frame(tensor="\1" * 8)],
        [run_frame(tensor=[1] * 8)],
        [run_frame(then_tensor=True), TENSOR],
        [frame(["stop"], then_tensor=True), TENSOR],
        [frame(["stop"], then_tensor=True), b""],
        [run_frame(tensor=b"", then_tensor=True), TENSOR, b""],
        [run_frame(tensor=b""), TENSOR],
        [run_frame(tensor=b"", then_tensor=True)],
        [run_frame(then_tensor=True)],
        [],
    ],
    ids=[
        "text",
        "numbers",
        "twice",
        "where none belongs",
        "an empty one where none belongs",
        "three frames",
        "not said in the header",
        "said and missing",
        "said, but in the header",
        "none",
    ],
)
def test_a_tensor_must_be_bytes_and_come_once_where_it_is_said(frames: list[bytes]) -> None:
    with pytest.raises(MalformedError):
        decode(frames, KEY)


@pytest.mark.parametrize("limit", ["MAX_HEADER_BYTES", "MAX_TENSOR_BYTES"])
def test_too_large_frames_are_refused(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, limit, 7)
    with pytest.raises(MalformedError, match="too large"):
        decode([run_frame(tensor=b"", then_tensor=True), TENSOR], KEY)


def test_another_runs_message_is_told_from_a_malformed_one() -> None:
    for other in (b"x" * 16, b"k" * 15, b"k" * 15 + b"x", b"another run's key", b""):
        with pytest.raises(ForeignError):
            decode(encode(StopMessage(), other), KEY)
    with pytest.raises(MalformedError):
        decode([msgspec.msgpack.encode(["stop"])], KEY)
