"""Messages over zmq: one PULL socket to receive on, one PUSH socket per peer to send with.

Sockets listen on loopback unless told otherwise. With a CURVE key pair (shared by the run's processes) all traffic is
encrypted, and a peer without the keys cannot connect.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from typing import Any

import zmq

from helix_kit.errors import HelixKitError
from helix_kit.runtime.transport import wire
from helix_kit.runtime.transport.messages import Message
from helix_kit.runtime.transport.wire import ForeignError, MalformedError

HIGH_WATER_MARK = 100_000
"""Messages queued for one peer. Requests in flight keep the queue far below it; a peer that reaches it is lost."""


# Plain numbers: combining flags of an enumeration for every frame takes longer than the call itself.
_AT_ONCE, _MORE, _READABLE, _HAS_MORE = int(zmq.NOBLOCK), int(zmq.SNDMORE), int(zmq.POLLIN), int(zmq.RCVMORE)

REFUSALS_PERIOD_S = 0.2
"""Time between two looks of an encrypted inbox for connections that were refused."""


class PeerLostError(HelixKitError):
    """The queue of a peer is full: it does not take messages any more."""


@dataclass(slots=True)
class DroppedMessages:
    """Counts of messages that were not acted on, by reason."""

    malformed: int = 0
    foreign: int = 0
    stale: int = 0
    reasons: list[str] = field(default_factory=list)
    """What was wrong with the last ten malformed ones."""

    def count(self, error: ForeignError | MalformedError) -> None:
        """One more message that could not be read."""
        if isinstance(error, ForeignError):
            self.foreign += 1
        else:
            self.malformed += 1
            self.reasons = [*self.reasons[-9:], str(error)]


@dataclass(frozen=True, slots=True)
class CurveKeys:
    """One CURVE key pair for a whole run, in zmq's Z85 text form."""

    public: bytes
    secret: bytes

    @classmethod
    def generate(cls) -> CurveKeys:
        """A fresh pair."""
        return cls(*zmq.curve_keypair())


def _secure(socket: zmq.Socket[bytes], keys: CurveKeys | None, *, server: bool) -> None:
    if keys is None:
        return
    socket.curve_publickey, socket.curve_secretkey = keys.public, keys.secret
    if server:
        socket.curve_server = True
    else:
        socket.curve_serverkey = keys.public


class Inbox:
    """The receiving end of one process. It listens on a free port of `host`; `endpoint` is its address."""

    def __init__(
        self, context: zmq.Context[Any], key: bytes, *, host: str = "127.0.0.1", keys: CurveKeys | None = None
    ) -> None:
        self.dropped = DroppedMessages()
        self._key = key
        self.socket = context.socket(zmq.PULL)
        self.socket.set(zmq.RCVHWM, HIGH_WATER_MARK)
        self.socket.set(zmq.LINGER, 0)
        self.socket.set(zmq.MAXMSGSIZE, wire.MAX_TENSOR_BYTES)
        _secure(self.socket, keys, server=True)
        self._wanted = [(self.socket, _READABLE)]
        # libzmq refuses a peer without the keys by itself, before any message. Its events say how often.
        self._refusals: Any = None
        self._looked_s = 0.0
        if keys is not None:
            failed = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
            self._refusals = self.socket.get_monitor_socket(failed | zmq.EVENT_HANDSHAKE_FAILED_AUTH)
        port = self.socket.bind_to_random_port(f"tcp://{host}")
        self.endpoint = f"tcp://{host}:{port}"

    def fileno(self) -> int:
        """A file descriptor that becomes readable when messages arrive; `receive` must then take all of them."""
        return int(self.socket.getsockopt(zmq.FD))

    def receive(self, timeout_s: float = 0.0, *, is_readable: bool = False) -> list[Message]:
        """All messages that have arrived; waits up to `timeout_s` for the first. `dropped` counts invalid ones.

        `is_readable` says that the file descriptor has become readable, so that the socket need not be asked first.
        """
        found: list[Message] = []
        if self._refusals is not None:
            self._count_refused()
        socket, wait_ms = self.socket, (int(timeout_s * 1000) or 1) if timeout_s > 0 else 0
        # The plain call: pyzmq's poller and its options by enumeration take several times as long.
        arrived = is_readable or zmq.zmq_poll(self._wanted, wait_ms)
        while arrived:
            try:
                # Copying a short header takes less time than a frame object does. A large tensor is not copied.
                frames: list[Any] = [socket.recv(_AT_ONCE)]
            except zmq.Again:  # the descriptor was readable for another reason, such as a new connection
                break
            # Asking whether a frame follows takes longer than receiving one, so the header says it.
            if not frames[0].startswith(wire.ALONE):
                frames += self._further_frames()
            try:
                found.append(wire.decode(frames, self._key))
            except (ForeignError, MalformedError) as error:
                self._further_frames()
                self.dropped.count(error)
            arrived = zmq.zmq_poll(self._wanted, 0)
        return found

    def _further_frames(self) -> list[memoryview]:
        """The frames of the message that have not been received."""
        frames = []
        while self.socket.getsockopt(_HAS_MORE):
            frames.append(self.socket.recv(_AT_ONCE, copy=False).buffer)
        return frames

    def _count_refused(self) -> None:
        """Count connections that failed the CURVE handshake as foreign; a peer that tries again counts again."""
        now = time.monotonic()
        if now - self._looked_s < REFUSALS_PERIOD_S:
            return
        self._looked_s = now
        with contextlib.suppress(zmq.Again):
            while True:
                self._refusals.recv_multipart(flags=zmq.NOBLOCK)
                self.dropped.foreign += 1

    def close(self) -> None:
        """Close the socket."""
        if self._refusals is not None:
            self.socket.disable_monitor()
            self._refusals.close(0)
        self.socket.close(0)


class Outbox:
    """The sending end of one process. It connects to a peer when it first sends to it."""

    def __init__(self, context: zmq.Context[Any], key: bytes, *, keys: CurveKeys | None = None) -> None:
        self._context, self._key, self._keys = context, key, keys
        self._sockets: dict[str, zmq.Socket[bytes]] = {}

    def send(self, endpoint: str, message: Message) -> None:
        """Queue a message for `endpoint`; raises PeerLostError when its queue is full."""
        socket = self._sockets.get(endpoint)
        if socket is None:
            socket = self._context.socket(zmq.PUSH)
            socket.set(zmq.SNDHWM, HIGH_WATER_MARK)
            socket.set(zmq.LINGER, 0)
            _secure(socket, self._keys, server=False)
            socket.connect(endpoint)
            self._sockets[endpoint] = socket
        header, *tensor = wire.encode(message, self._key)
        try:
            if not tensor:
                socket.send(header, _AT_ONCE)
                return
            # A queue takes whole messages: if it has taken the first frame, it takes the second one.
            socket.send(header, _AT_ONCE | _MORE)
            socket.send(tensor[0], _AT_ONCE, copy=False)
        except zmq.Again:
            raise PeerLostError(f"{endpoint} takes no more messages") from None

    def forget(self, endpoint: str) -> None:
        """Close the connection to a peer that is gone, and drop what is queued for it."""
        if socket := self._sockets.pop(endpoint, None):
            socket.close(0)

    def flush_and_close(self, linger_ms: int = 500) -> None:
        """Close all sockets; queued messages get `linger_ms` to be sent."""
        for socket in self._sockets.values():
            socket.close(linger_ms)
        self._sockets.clear()
