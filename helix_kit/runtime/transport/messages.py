"""What workers and coordinator say to each other: a msgpack header and one raw tensor, both checked before use.

Every header carries the run's secret key, so a message of another run (or of anybody else) is told apart from a
malformed one. Nothing is ever unpickled. A header names its kind; `_CHECKS` says what each kind must hold.
"""

from __future__ import annotations

import array
import hmac
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgpack

MAX_HEADER_BYTES = 4 << 20
MAX_TENSOR_BYTES = 512 << 20
MAX_ITEMS = 65536
MAX_STAGES = 1024
MAX_POSITION = 1 << 24
MAX_TEXT = 8192
MAX_INT = 1 << 62
MAX_HOPS = 64
STATS = (
    "pages_used",
    "requests",
    "steps",
    "overruns",
    "overrun_s",
    "busy_s",
    "prefill_tokens",
    "decode_tokens",
    "pages_peak",
    "malformed",
    "foreign",
    "stale",
    "cpu_s",
)
"""A worker's counters in the order in which a heartbeat carries them; their names would be most of it."""
_ITEM_BYTES = {"int32": 4, "float32": 4, "bfloat16": 2, "float16": 2}


class MalformedError(ValueError):
    """The bytes are not a message of ours."""


class ForeignError(ValueError):
    """A well-formed message that does not carry this run's key."""


@dataclass(slots=True)
class Message:
    """A checked message: `body` holds the header's fields, `tensor` the raw bytes described by dtype and shape."""

    kind: str
    body: dict[str, Any]
    tensor: memoryview | None = None
    dtype: str = ""
    shape: tuple[int, ...] = ()


@dataclass(slots=True)
class WorkItem:
    """One request's rows in a `run` message.

    `route` comes with the first rows of an epoch: [[node, start, end, endpoint], ...]; `last` marks rows whose
    final one is to be sampled from.
    """

    request: int
    epoch: int
    position: int
    tokens: int
    last: bool
    route: list[list[Any]] | None = None
    sampling: list[Any] | None = None

    def pack(self) -> list[Any]:
        """The item as it travels."""
        return [self.request, self.epoch, self.position, self.tokens, self.last, self.route, self.sampling]


def pack(
    kind: str,
    key: bytes,
    body: dict[str, Any],
    *,
    dtype: str = "",
    shape: Sequence[int] = (),
    tensor: Any = b"",
    packer: msgpack.Packer | None = None,
) -> bytes:
    """Header bytes of a message; a small `tensor` (bytes) may travel in the header instead of a frame of its own."""
    # A list: the names of its fields would be most of a short message, and of the work of reading one.
    return (packer or msgpack.Packer()).pack([kind, key, dtype, list(shape), tensor, body])


def unpack(frames: Sequence[Any], key: bytes) -> Message:
    """The message in one frame (the header, a small tensor in it) or two (header, tensor).

    Raises MalformedError when a size, type or value is not as expected, ForeignError when the key is another's.
    """
    if not 1 <= len(frames) <= 2:
        raise MalformedError(f"{len(frames)} frames, expected 1 or 2")
    header = memoryview(frames[0])
    if header.nbytes > MAX_HEADER_BYTES:
        raise MalformedError("too large")
    try:
        fields = msgpack.unpackb(header, max_ext_len=0)
    except Exception as error:  # msgpack raises several unrelated types on bad bytes
        raise MalformedError(f"not msgpack: {error}") from None
    if type(fields) is not list or len(fields) != 6:
        raise MalformedError("header is not a list of six fields")
    kind, found, dtype, shape, inline, body = fields
    if type(found) is not bytes or not hmac.compare_digest(found, key):
        raise ForeignError("another run's key")
    if type(inline) is not bytes or (inline and len(frames) == 2):
        raise MalformedError("expected one tensor, as bytes")
    tensor = memoryview(frames[1] if len(frames) == 2 else inline)
    if tensor.nbytes > MAX_TENSOR_BYTES:
        raise MalformedError("too large")
    if type(kind) is not str or kind not in _CHECKS:
        raise MalformedError(f"unknown kind {kind!r}")
    if type(body) is not dict:
        raise MalformedError("body is not a map")
    _check_tensor(tensor, dtype, shape)
    message = Message(kind, body, tensor if tensor.nbytes else None, dtype or "", tuple(shape))
    _CHECKS[kind](message)
    return message


def _need(condition: bool, what: str) -> None:
    if not condition:
        raise MalformedError(f"expected {what}")


def _is_int(value: Any, low: int = 0, high: int = MAX_INT) -> bool:
    return type(value) is int and low <= value <= high


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MAX_TEXT


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _are_stats(value: Any) -> bool:
    return type(value) is list and len(value) == len(STATS) and all(map(_is_number, value))


def _are_hops(value: Any) -> bool:
    if type(value) is not dict or len(value) > MAX_HOPS:
        return False
    return all(map(_is_text, value)) and all(map(_is_number, value.values()))


def _check_tensor(tensor: memoryview, dtype: Any, shape: Any) -> None:
    if shape == [] and not tensor.nbytes:
        return
    _need(isinstance(shape, list) and len(shape) <= 2 and all(_is_int(n, 0, 1 << 30) for n in shape), "a shape")
    if not tensor.nbytes:
        return
    _need(isinstance(dtype, str) and dtype in _ITEM_BYTES, f"a dtype of {', '.join(_ITEM_BYTES)}")
    count = 1
    for n in shape:
        count *= n
    _need(tensor.nbytes == count * _ITEM_BYTES[dtype], "a tensor of the size its shape says")


def _check_run(message: Message) -> None:
    _need(set(message.body) == {"items"}, "only items")
    raw = message.body["items"]
    _need(isinstance(raw, list) and 0 < len(raw) <= MAX_ITEMS, "a list of items")
    items = []
    for entry in raw:
        _need(isinstance(entry, list) and len(entry) == 7, "items of seven fields")
        request, epoch, position, tokens, last, route, sampling = entry
        _need(_is_int(request) and _is_int(epoch), "request and epoch as whole numbers")
        _need(_is_int(position, 0, MAX_POSITION) and _is_int(tokens, 1, MAX_POSITION), "a position and its tokens")
        _need(isinstance(last, bool), "last as true or false")
        if route is not None:
            _check_route(route)
        if sampling is not None:
            _check_sampling(sampling)
        items.append(WorkItem(*entry))
    _need(bool(message.shape) and message.shape[0] == sum(i.tokens for i in items), "one row for each token")
    _need(message.tensor is not None, "a tensor")
    message.body["items"] = items


def _check_route(route: Any) -> None:
    _need(isinstance(route, list) and 0 < len(route) <= MAX_STAGES, "a route")
    done = 0
    for stage in route:
        _need(isinstance(stage, list) and len(stage) == 4, "stages of four fields")
        node, start, end, endpoint = stage
        _need(_is_text(node) and _is_text(endpoint) and endpoint.startswith("tcp://"), "a node and its endpoint")
        _need(_is_int(start) and _is_int(end) and start == done < end, "layers in order, without gaps")
        done = end


def _check_sampling(sampling: Any) -> None:
    _need(isinstance(sampling, list) and len(sampling) == 4, "sampling of four fields")
    temperature, top_k, top_p, seed = sampling
    _need(_is_number(temperature) and 0 <= temperature <= 100, "a temperature")
    _need(_is_int(top_k) and _is_number(top_p) and 0 < top_p <= 1, "top_k and top_p")
    _need(type(seed) is int and 0 <= seed < 1 << 63, "a seed")


def _rows_of(width: int, *names: str) -> Callable[[Message], None]:
    """A check that the body has `names`, and rows of `width` whole numbers under ``rows``."""

    fields = {"rows", *names}

    def check(message: Message) -> None:
        # For every token that is made: plain loops, without a call for each number.
        body = message.body
        if body.keys() != fields:
            raise MalformedError(f"expected the fields rows, {', '.join(names)}")
        rows = body["rows"]
        if type(rows) is not list or len(rows) > MAX_ITEMS:
            raise MalformedError("expected a list of rows")
        for row in rows:
            if type(row) is not list or len(row) != width:
                raise MalformedError("expected rows of numbers")
            for value in row:
                if type(value) is not int or not 0 <= value <= MAX_INT:
                    raise MalformedError("expected rows of numbers")
        for name in names:
            value = body[name]
            if not (_is_text(value) if name == "node" else _is_int(value)):
                raise MalformedError(f"expected a valid {name}")

    return check


def _fields(**types: str) -> Callable[[Message], None]:
    """A check that the body has exactly these fields, each of type ``text``, ``int``, ``stats`` or ``hops``."""

    ok_of = {"text": _is_text, "int": _is_int, "stats": _are_stats, "hops": _are_hops}

    def check(message: Message) -> None:
        if message.body.keys() != types.keys():
            raise MalformedError(f"expected the fields {', '.join(types)}")
        for name, kind in types.items():
            value = message.body[name]
            if not ok_of[kind](value):
                raise MalformedError(f"expected a valid {name}")

    return check


_CHECKS: dict[str, Callable[[Message], None]] = {
    "run": _check_run,
    "free": _rows_of(2),
    "forget": _fields(endpoint="text"),
    "stop": _fields(),
    "ready": _fields(node="text", generation="int", endpoint="text", pages="int", pid="int"),
    "tokens": _rows_of(4, "node", "generation"),
    "freed": _rows_of(2, "node", "generation"),
    "beat": _fields(node="text", generation="int", stats="stats", hops="hops"),
    "failed": _fields(node="text", generation="int", reason="text"),
}


@dataclass(slots=True)
class Dropped:
    """Messages that were not acted on, by reason."""

    malformed: int = 0
    foreign: int = 0
    stale: int = 0
    reasons: list[str] = field(default_factory=list)


def ids_frame(token_ids: Sequence[int]) -> bytes:
    """Token ids as the tensor of a `run` message to a first stage (dtype int32, shape (tokens,))."""
    return array.array("i", token_ids).tobytes()
