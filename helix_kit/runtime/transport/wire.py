"""How messages travel: a fixed prefix with the run's secret key, then the fields as MessagePack.

A tensor of more than `INLINE_BYTES` follows in a frame of its own, and the prefix says so. The key is compared before
anything is parsed, so a message of another run is told apart from a malformed one. `msgspec` checks types and bounds
while it decodes; nothing is ever unpickled.

>>> from helix_kit.runtime.transport.messages import FreeMessage, RequestEpoch
>>> from helix_kit.runtime.transport.wire import decode, encode
>>> frames = encode(FreeMessage([RequestEpoch(7, 0)]), key=b"secret")
>>> decode(frames, key=b"secret")
FreeMessage(requests=[RequestEpoch(request=7, epoch=0)], kept=[])
"""

from __future__ import annotations

import hmac
import math
from collections.abc import Sequence
from typing import Any

import msgspec

from helix_kit.runtime.transport.messages import HeartbeatMessage, Message, RouteStage, RunMessage

MAX_HEADER_BYTES = 4 << 20
MAX_TENSOR_BYTES = 512 << 20
INLINE_BYTES = 1 << 14
"""A tensor of up to this size travels in the header. Copying it takes less time than a frame of its own."""

_NAME = b"helix-kit"
ALONE, WITH_TENSOR = _NAME + b"\0", _NAME + b"\1"
"""How a message begins: in one frame, and before a frame with its tensor."""
_ITEM_BYTES: dict[str, int] = {"int32": 4, "float32": 4, "bfloat16": 2, "float16": 2}


class MalformedError(ValueError):
    """The bytes are not a valid message."""


class ForeignError(ValueError):
    """The message carries the key of another run."""


_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)  # type: ignore[arg-type]


def encode(message: Message, key: bytes) -> list[Any]:
    """Put a message into the form in which it travels.

    Parameters
    ----------
    message
        Any message. It is not checked here; `decode` checks it on arrival.
    key
        The run's secret key.

    Returns
    -------
    One frame, or two where a tensor has more than `INLINE_BYTES`: the header, and the tensor's bytes uncopied.

    Examples
    --------
    >>> from helix_kit.runtime.transport.messages import StopMessage, WorkItem
    >>> len(encode(StopMessage(), key=b"secret"))
    1
    >>> item = WorkItem(request=1, epoch=0, position=0, tokens=5000, wants_token=True)
    >>> [len(frame) for frame in encode(RunMessage.of_token_ids([item], [3] * 5000), key=b"secret")]
    [56, 20000]
    """
    if type(message) is RunMessage and len(message.tensor) > INLINE_BYTES:
        header = RunMessage(message.items, message.dtype, message.shape, memoryview(b""), message.due_s)
        return [WITH_TENSOR + key + _encoder.encode(header), message.tensor]
    return [ALONE + key + _encoder.encode(message)]


def decode(frames: Sequence[Any], key: bytes) -> Message:
    """Check what has arrived and return it as a message.

    Parameters
    ----------
    frames
        The frames of one message: bytes or memoryviews. A tensor in the result shares their memory.
    key
        The run's secret key.

    Returns
    -------
    The message. All of its fields have the declared types and are within the declared bounds.

    Raises
    ------
    MalformedError
        A size, type or value is not as declared.
    ForeignError
        The message carries another key.

    Examples
    --------
    >>> from helix_kit.runtime.transport.messages import StopMessage
    >>> decode([b"anything"], key=b"secret")
    Traceback (most recent call last):
    helix_kit.runtime.transport.wire.MalformedError: not a message of helix_kit
    >>> decode(encode(StopMessage(), key=b"another"), key=b"secret")
    Traceback (most recent call last):
    helix_kit.runtime.transport.wire.ForeignError: the key of another run
    """
    if not 1 <= len(frames) <= 2:
        raise MalformedError(f"{len(frames)} frames, expected 1 or 2")
    header = memoryview(frames[0])
    if len(header) > MAX_HEADER_BYTES:
        raise MalformedError("the header is too large")
    prefix = (ALONE if len(frames) == 1 else WITH_TENSOR) + key
    if not hmac.compare_digest(header[: len(prefix)], prefix):
        raise _refusal(header, len(frames))
    try:
        message = _decoder.decode(header[len(prefix) :])
    except (msgspec.DecodeError, ValueError, RecursionError) as error:  # ValueError: text that is not UTF-8
        raise MalformedError(str(error)) from None
    if type(message) is RunMessage:
        return _checked_run(message, frames)
    if len(frames) > 1:
        raise MalformedError("only run messages have a tensor")
    if type(message) is HeartbeatMessage:
        counters = message.counters
        if not all(map(math.isfinite, (counters.overrun_s, counters.busy_s, counters.cpu_s, *message.hop_s.values()))):
            raise MalformedError("expected finite numbers of seconds")
    return message


def _refusal(header: memoryview, num_frames: int) -> MalformedError | ForeignError:
    """Why a header is refused that does not begin as one of this run."""
    beginning = header[: len(ALONE)]
    if beginning not in (ALONE, WITH_TENSOR):
        return MalformedError("not a message of helix_kit")
    if beginning != (ALONE if num_frames == 1 else WITH_TENSOR):
        return MalformedError("expected a frame with a tensor exactly where the header says so")
    return ForeignError("the key of another run")


def _checked_run(message: RunMessage, frames: Sequence[Any]) -> RunMessage:
    """The message with its tensor, after the checks that concern several fields."""
    if len(frames) == 2:
        if len(message.tensor):
            raise MalformedError("expected one tensor, in the header or behind it")
        tensor = memoryview(frames[1])
        if tensor.nbytes > MAX_TENSOR_BYTES:
            raise MalformedError("the tensor is too large")
        message.tensor = tensor
    rows = 0
    for item in message.items:
        rows += item.tokens
        if item.route is not None:
            _check_route(item.route)
        if item.token_ids is not None:
            rows_known = item.tokens if item.route is None else item.position + item.tokens
            if len(item.token_ids) not in (4 * rows_known, 4 * rows_known + 4):
                raise MalformedError("expected the token of each row, and at most one more")
    if message.shape[0] != rows:
        raise MalformedError("expected one row for each token")
    if message.tensor.nbytes != math.prod(message.shape) * _ITEM_BYTES[message.dtype] or not message.tensor.nbytes:
        raise MalformedError("expected a tensor of the size that its shape says")
    return message


def _check_route(route: list[RouteStage]) -> None:
    end = 0
    for stage in route:
        if stage.start != end or stage.end <= end:
            raise MalformedError("expected stages in the order of their layers, without gaps")
        end = stage.end
