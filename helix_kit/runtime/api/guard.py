"""ASGI middleware in front of the application: it checks the API key and the size of the body, and counts answers."""

from __future__ import annotations

import hmac

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from helix_kit.runtime.api import errors
from helix_kit.runtime.api.metrics import ApiMetrics

OPEN_PATHS = {"/health"}
"""Paths that need no key: load balancers ask them."""
KNOWN_PATHS = {"/v1/completions", "/v1/chat/completions", "/v1/models", "/health", "/metrics"}
"""Paths that are counted by name; all others are counted together."""


class Guard:
    """Answers 413 to a body over the limit and 401 to a request without the key; passes all others on.

    Parameters
    ----------
    app
        The application behind it.
    metrics
        Counts every answer by path and status.
    api_key
        The key that requests must carry; None: no key is needed.
    max_body_bytes
        The limit.
    """

    def __init__(self, app: ASGIApp, *, metrics: ApiMetrics, api_key: str | None, max_body_bytes: int) -> None:
        self._app, self._metrics = app, metrics
        self._key = api_key.encode() if api_key is not None else None
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request, or pass it on to the application after its whole body has been read."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"]

        async def counting_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                known = path if path in KNOWN_PATHS else "other"
                self._metrics.requests.labels(known, str(message["status"])).inc()
            await send(message)

        headers = dict(scope["headers"])
        if path not in OPEN_PATHS and not self._has_key(headers.get(b"authorization", b"")):
            answer = errors.response(401, "expected the header `Authorization: Bearer <API key>`", "invalid_api_key")
            answer.headers["WWW-Authenticate"] = "Bearer"
            await answer(scope, receive, counting_send)
            return
        body = await self._read_body(headers.get(b"content-length", b""), receive)
        if body is None:
            message = f"the body is larger than {self._max_body_bytes} bytes"
            await errors.response(413, message, "too_large")(scope, receive, counting_send)
            return
        was_passed_on = False

        async def receive_again() -> Message:
            """The body first, as one message; then what else the client sends (that it has disconnected)."""
            nonlocal was_passed_on
            if not was_passed_on:
                was_passed_on = True
                return {"type": "http.request", "body": body, "more_body": False}
            return await receive()

        await self._app(scope, receive_again, counting_send)

    def _has_key(self, header: bytes) -> bool:
        if self._key is None:
            return True
        scheme, _, key = header.partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(key.strip(), self._key)

    async def _read_body(self, content_length: bytes, receive: Receive) -> bytes | None:
        """The whole body; None as soon as it is known to be larger than the limit."""
        if content_length.isdigit() and int(content_length) > self._max_body_bytes:
            return None
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return b"".join(chunks)
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
            if size > self._max_body_bytes:
                return None
            if not message.get("more_body", False):
                return b"".join(chunks)
