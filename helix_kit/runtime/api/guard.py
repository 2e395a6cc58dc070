"""What every request passes first: its size, its key; and what is counted of it last."""

from __future__ import annotations

import hmac

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from helix_kit.runtime.api import errors
from helix_kit.runtime.api.metrics import ApiMetrics

OPEN_PATHS = {"/health"}
"""Answered without a key: for load balancers."""
KNOWN_PATHS = {"/v1/completions", "/v1/chat/completions", "/v1/models", "/health", "/metrics"}


class Guard:
    """ASGI middleware: 413 for a body over the limit, 401 without the key."""

    def __init__(self, app: ASGIApp, *, metrics: ApiMetrics, api_key: str | None, max_body_bytes: int) -> None:
        self._app, self._metrics = app, metrics
        self._key = api_key.encode() if api_key is not None else None
        self._limit = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request here, or pass it on with its body read."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"]

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                known = path if path in KNOWN_PATHS else "other"
                self._metrics.requests.labels(known, str(message["status"])).inc()
            await send(message)

        headers = dict(scope["headers"])
        if path not in OPEN_PATHS and not self._has_key(headers.get(b"authorization", b"")):
            answer = errors.response(401, "expected the header `Authorization: Bearer <API key>`", "invalid_api_key")
            answer.headers["WWW-Authenticate"] = "Bearer"
            await answer(scope, receive, counting)
            return
        body = await self._body(headers.get(b"content-length", b""), receive)
        if body is None:
            message = f"the body is larger than {self._limit} bytes"
            await errors.response(413, message, "too_large")(scope, receive, counting)
            return
        sent = False

        async def replay() -> Message:
            nonlocal sent
            if not sent:
                sent = True
                return {"type": "http.request", "body": body, "more_body": False}
            return await receive()

        await self._app(scope, replay, counting)

    def _has_key(self, header: bytes) -> bool:
        if self._key is None:
            return True
        scheme, _, found = header.partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(found.strip(), self._key)

    async def _body(self, length: bytes, receive: Receive) -> bytes | None:
        """The whole body; None as soon as it is known to be too large."""
        if length.isdigit() and int(length) > self._limit:
            return None
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return b"".join(parts)
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self._limit:
                return None
            if not message.get("more_body", False):
                return b"".join(parts)
