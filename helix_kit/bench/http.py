"""A small HTTP/1.1 client: one POST or GET at a time on a connection, and the body as it comes.

It decodes bodies with a length, in chunks, or up to the end of the connection, and keeps connections for later
requests. It follows no redirects and takes no compression. Whatever a server sends, it raises `TransportError` or
returns bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import urlsplit

from helix_kit.errors import InputError

FINISH_S = 0.25
"""How long the end of a stream is waited for, once it has said that it is done."""
STALE_S = 1.0
READ_BYTES = 1 << 16
MAX_HEAD_BYTES = 1 << 16
MAX_BODY_BYTES = 1 << 20
"""Of an answer that is read whole."""


class TransportError(Exception):
    """A connection could not be made, ended early, or carried what is no HTTP."""


@dataclass(frozen=True)
class Address:
    """Where a server is: from a URL such as http://127.0.0.1:8000/v1.

    >>> Address.of("http://127.0.0.1:8000").base
    '/v1'
    """

    host: str
    port: int
    is_tls: bool
    base: str
    """Path before ``/completions``."""

    @classmethod
    def of(cls, url: str) -> Address:
        """The address of a URL; ``/v1`` is added where no path is given. InputError for what is no such URL."""
        expected = InputError("expected a URL such as http://127.0.0.1:8000/v1", field="url", value=url)
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}")
            port = parts.port
        except ValueError:
            raise expected from None
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise expected
        base = parts.path.rstrip("/")
        for ending in ("/chat/completions", "/completions"):
            base = base.removesuffix(ending)
        return cls(
            parts.hostname, port or (443 if parts.scheme == "https" else 80), parts.scheme == "https", base or "/v1"
        )

    @property
    def host_header(self) -> str:
        """Value of the Host header."""
        return f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


class Connection(NamedTuple):
    """An open connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    idle_since_s: float | None = None
    """When its last request ended, on the clock of `time.monotonic`; None: it has carried none."""

    @property
    def may_be_stale(self) -> bool:
        """Whether it was idle for long enough that the server may have closed it: servers wait for some seconds."""
        return self.idle_since_s is not None and time.monotonic() - self.idle_since_s > STALE_S


@dataclass
class Answer:
    """Status and headers of a response, and its body as it comes."""

    status: int
    headers: dict[str, str]
    _decoder: _Body
    _reader: asyncio.StreamReader

    async def pieces(self) -> AsyncIterator[bytes]:
        """The bytes of the body, as they come."""
        while True:
            if ready := self._decoder.take():
                yield ready
            if self._decoder.is_done:
                return
            received = await self._reader.read(READ_BYTES)
            self._decoder.feed(received)

    async def finish(self) -> None:
        """Read what is left, for a moment, so that the connection can be used again."""
        with contextlib.suppress(TimeoutError, TransportError):
            async with asyncio.timeout(FINISH_S):
                async for _ in self.pieces():
                    pass

    @property
    def leaves_connection(self) -> bool:
        """Whether another request can be sent on the connection."""
        says_close = self.headers.get("connection", "").lower() == "close"
        return self._decoder.ends_by_itself and self._decoder.is_empty and not says_close

    async def text(self) -> str:
        """The whole body, at most a megabyte of it."""
        body = b""
        async for piece in self.pieces():
            body += piece
            if len(body) > MAX_BODY_BYTES:
                break
        return body[:MAX_BODY_BYTES].decode("utf-8", errors="replace")


class _Body:
    """Decodes a body from the bytes that follow its head."""

    def __init__(self, headers: dict[str, str], received: bytes) -> None:
        self._buffer = bytearray(received)
        self._is_chunked = "chunked" in headers.get("transfer-encoding", "").lower()
        self._left: int | None = 0 if self._is_chunked else None
        if not self._is_chunked and (length := headers.get("content-length")) is not None:
            if not length.strip().isdecimal():
                raise TransportError(f"a content-length that is no number: {length[:40]!r}")
            self._left = int(length)
        self._skips_end = self._in_trailers = False
        self.is_done = self._left == 0 and not self._is_chunked
        self.ends_by_itself = self._is_chunked or self._left is not None

    @property
    def is_empty(self) -> bool:
        """Whether the body was read whole, and nothing follows it."""
        return self.is_done and not self._buffer

    def feed(self, received: bytes) -> None:
        """Take what has been received; nothing means that the connection has ended."""
        if received:
            self._buffer += received
        elif self._left is None and not self._is_chunked:
            self.is_done = True
        else:
            raise TransportError("the connection ended before the answer was complete")

    def take(self) -> bytes:
        """What is decoded by now."""
        if not self._is_chunked:
            size = len(self._buffer) if self._left is None else min(self._left, len(self._buffer))
            taken = bytes(self._buffer[:size])
            del self._buffer[:size]
            if self._left is not None:
                self._left -= size
                self.is_done = self._left == 0
            return taken
        taken_parts = bytearray()
        while not self.is_done:
            if self._left:
                size = min(self._left, len(self._buffer))
                taken_parts += self._buffer[:size]
                del self._buffer[:size]
                self._left -= size
                self._skips_end = self._left == 0
                if self._left:
                    break
            elif not self._read_size():
                break
        return bytes(taken_parts)

    def _read_size(self) -> bool:
        """Read the line with the size of the next chunk; False when it has not come yet."""
        if self._in_trailers:
            end = self._buffer.find(b"\r\n")
            if end >= 0:
                self.is_done = end == 0
                del self._buffer[: end + 2]
            return end >= 0
        if self._skips_end:
            if len(self._buffer) < 2:
                return False
            if self._buffer[:2] != b"\r\n":
                raise TransportError("a chunk of another length than was announced")
            del self._buffer[:2]
            self._skips_end = False
        end = self._buffer.find(b"\r\n")
        if end < 0:
            if len(self._buffer) > 100:
                raise TransportError("a chunk without a length")
            return False
        text = bytes(self._buffer[:end]).split(b";")[0].strip()
        try:
            self._left = int(text, 16)
        except ValueError:
            raise TransportError(f"a chunk whose length is no number: {text[:40]!r}") from None
        if self._left < 0:
            raise TransportError("a chunk of negative length")
        del self._buffer[: end + 2]
        self._in_trailers = self._left == 0
        return True


@dataclass
class Client:
    """Connections to one server, kept open between requests."""

    address: Address
    headers: dict[str, str] = field(default_factory=dict)
    """Sent with every request."""

    def __post_init__(self) -> None:
        self._free: list[Connection] = []
        self._tls = ssl.create_default_context() if self.address.is_tls else None

    async def connect(self, *, fresh: bool = False) -> Connection:
        """A connection that was kept, or a new one; always a new one if `fresh`."""
        while self._free and not fresh:
            kept = self._free.pop()
            if not kept.reader.at_eof() and not kept.writer.is_closing():
                return kept
            kept.writer.close()
        host, port = self.address.host, self.address.port
        try:
            reader, writer = await asyncio.open_connection(host, port, ssl=self._tls, limit=MAX_HEAD_BYTES)
        except (OSError, ssl.SSLError) as error:
            raise TransportError(f"no connection: {error.strerror or error}") from None
        return Connection(reader, writer)

    async def send(self, method: str, path: str, body: bytes, connection: Connection) -> Answer:
        """Send a request on a connection, and read the head of the answer."""
        reader, writer = connection.reader, connection.writer
        lines = [f"{method} {self.address.base}{path} HTTP/1.1", f"Host: {self.address.host_header}",
                 "Content-Type: application/json", f"Content-Length: {len(body)}", "Accept-Encoding: identity",
                 *(f"{name}: {value}" for name, value in self.headers.items())]  # fmt: skip
        try:
            writer.write(("\r\n".join(lines) + "\r\n\r\n").encode() + body)
            await writer.drain()
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                status, headers = _parse_head(head)
                if status >= 200:
                    return Answer(status, headers, _Body(headers, b""), reader)
        except asyncio.IncompleteReadError as error:
            message = "the connection ended before an answer" if not error.partial else "an answer that is no HTTP"
            raise TransportError(message) from None
        except asyncio.LimitOverrunError:
            raise TransportError("an answer that is no HTTP") from None
        except OSError as error:
            raise TransportError(f"the connection broke: {error.strerror or error}") from None

    def release(self, answer: Answer | None, connection: Connection) -> None:
        """Keep the connection for another request if its answer was read whole, else close it."""
        if answer is not None and answer.leaves_connection:
            self._free.append(connection._replace(idle_since_s=time.monotonic()))
        else:
            connection.writer.close()

    def close(self) -> None:
        """Close the connections that were kept."""
        for kept in self._free:
            kept.writer.close()
        self._free.clear()


def _parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    """Status and headers; TransportError for what is no head of a response."""
    first, *lines = head.decode("latin-1").split("\r\n")
    parts = first.split(" ", 2)
    if len(parts) < 2 or not parts[0].startswith("HTTP/") or not parts[1].isdecimal():
        raise TransportError(f"an answer that is no HTTP: {first[:60]!r}")
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip().lower()] = value.strip()
    return int(parts[1]), headers
