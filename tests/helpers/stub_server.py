"""A server with OpenAI's API that does what a test says: how fast it answers, and how it fails."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def event(content: dict[str, Any] | str) -> bytes:
    """A server-sent event as one chunk of a body."""
    text = content if isinstance(content, str) else json.dumps(content)
    return chunk(f"data: {text}\n\n".encode())


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def answer(tokens: int, prompt_tokens: int) -> list[bytes]:
    """The chunks of a good answer: tokens, the end, the counts."""
    words = [event({"choices": [{"text": f" w{i}", "finish_reason": None}]}) for i in range(tokens)]
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": tokens}
    return [*words, event({"choices": [{"text": "", "finish_reason": "length"}]}),
            event({"choices": [], "usage": usage}), event("[DONE]"), b"0\r\n\r\n"]  # fmt: skip


Handler = Callable[[dict[str, Any], asyncio.StreamWriter], Awaitable[None]]


async def prompt_answer(body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
    """Answer at once, counting each word as a token and a half, and two tokens around."""
    prompt = body.get("prompt") or body["messages"][0]["content"]
    count = len(prompt) if isinstance(prompt, list) else round(1.5 * len(prompt.split())) + 2
    writer.write(HEAD + b"".join(answer(body["max_tokens"], count)))
    await writer.drain()


@dataclass
class Stub:
    """The server, in a thread of its own."""

    handler: Handler = prompt_answer
    bodies: list[dict[str, Any]] = field(default_factory=list)
    connections: int = 0
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Stub:
        started = threading.Event()

        async def serve() -> None:
            self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
            server = await asyncio.start_server(self._connected, "127.0.0.1", 0, backlog=1024)
            self.port = server.sockets[0].getsockname()[1]
            started.set()
            await self._stop.wait()
            server.close()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

        self._thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
        self._thread.start()
        started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(
                    next(x.split(b":")[1] for x in head.split(b"\r\n") if x.lower().startswith(b"content-len"))
                )
                body = json.loads(await reader.readexactly(length) or b"{}")
                if head.startswith(b"GET"):
                    text = json.dumps({"data": [{"id": "stub"}]}).encode()
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text))
                    continue
                self.bodies.append(body)
                await self.handler(body, writer)
                if writer.is_closing():
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()
