"""How the processes of one engine reach each other, and how they know each other's messages from strangers'."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

import zmq

from helix_kit.runtime.transport.sockets import CurveKeys, Inbox, Outbox

LOOPBACK = frozenset({"127.0.0.1", "localhost"})


@dataclass(frozen=True, slots=True)
class Connection:
    """Address and keys of one engine."""

    host: str
    """Address of this machine to listen on."""
    key: bytes
    """Part of every message: a message without it belongs to another engine."""
    curve: CurveKeys | None
    """Keys that encrypt all sockets; None: not encrypted."""

    @classmethod
    def fresh(cls, host: str, *, encrypt: bool) -> Connection:
        """New keys for one engine; sockets that others can reach are always encrypted."""
        curve = CurveKeys.generate() if encrypt or host not in LOOPBACK else None
        return cls(host, secrets.token_bytes(16), curve)

    def open_inbox(self, context: zmq.Context[Any]) -> Inbox:
        """A socket to receive on, at a free port of `host`."""
        return Inbox(context, self.key, host=self.host, keys=self.curve)

    def open_outbox(self, context: zmq.Context[Any]) -> Outbox:
        """Sockets to send with."""
        return Outbox(context, self.key, keys=self.curve)
