"""One request to a server, as the record that the simulator and the runtime write as well."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from helix_kit.bench import events
from helix_kit.bench.http import Answer, Client, TransportError
from helix_kit.bench.options import BenchOptions
from helix_kit.workload.request import Outcome, Request, RequestRecord

REJECTED = 429
"""Status of a server whose queue is full."""


class RefusedError(Exception):
    """The server answered with an error status."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(f"HTTP {status}: {message}" if message else f"HTTP {status}")


def body_of(request: Request, prompt: str | list[int], model: str, options: BenchOptions) -> bytes:
    """The body of a request: a stream, greedy, with the server's token counts at its end."""
    body: dict[str, Any] = {
        "model": model,
        "max_tokens": request.output_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    body |= {"messages": [{"role": "user", "content": prompt}]} if options.chat else {"prompt": prompt}
    if options.ignore_eos:
        body["ignore_eos"] = True
    return json.dumps(body | dict(options.extra_body)).encode()


async def ask(
    client: Client, request: Request, body: bytes, options: BenchOptions, now_s: Callable[[], float]
) -> RequestRecord:
    """Send a request and read its stream; whatever goes wrong is the record's reason.

    `request.arrival_s` is when it was due; the record's `started_s` when it was sent. A request that fails has no
    tokens: they do not count for any throughput.
    """
    record = RequestRecord(request)
    times_s: list[float] = []
    outcome: Outcome = "failed"
    try:
        async with asyncio.timeout(options.timeout_s):
            counts = await _read(client, body, options, record, times_s, now_s)
        outcome = "finished"
    except TimeoutError:
        record.reason = f"no answer within {options.timeout_s:g} s"
    except RefusedError as error:
        record.reason, outcome = str(error), "rejected" if error.status == REJECTED else "failed"
    except (TransportError, events.StreamError) as error:
        record.reason = str(error)
    except OSError as error:
        record.reason = f"the connection broke: {error.strerror or error}"
    record.outcome, record.finished_s = outcome, now_s()
    if outcome == "finished":
        tokens_in, tokens_out = counts or (request.input_tokens, len(times_s))
        record.request = replace(request, input_tokens=max(1, tokens_in))
        record.tokens_generated = tokens_out
        record.token_times_s = events.spread(times_s, tokens_out)
        record.first_token_s = record.token_times_s[0] if record.token_times_s else None
        # The last token ends the request, as on the server; the counts come in an event of their own after it.
        record.finished_s = times_s[-1] if times_s else record.finished_s
    return record


async def _read(
    client: Client, body: bytes, options: BenchOptions, record: RequestRecord, times_s: list[float],
    now_s: Callable[[], float],
) -> tuple[int, int] | None:  # fmt: skip
    """Read the whole stream: times of the events with text go into `times_s`; returns the server's token counts."""
    path = "/chat/completions" if options.chat else "/completions"
    connection = await client.connect()
    answer: Answer | None = None
    try:
        record.started_s = now_s()
        try:
            answer = await client.send("POST", path, body, connection)
        except TransportError:
            if not connection.may_be_stale:
                raise
            # The server has closed a connection that was kept: that is no failure of this request.
            connection.writer.close()
            connection = await client.connect(fresh=True)
            answer = await client.send("POST", path, body, connection)
        if answer.status != 200:
            raise RefusedError(answer.status, _message(await answer.text()))
        if "application/json" in answer.headers.get("content-type", ""):
            raise events.StreamError("an answer that is no stream")
        stream, counts, ended = events.EventReader(), None, False
        async for piece in answer.pieces():
            at_s = now_s()
            for event in stream.feed(piece):
                if events.has_text(event):
                    times_s.append(at_s)
                ended = ended or events.finish_reason(event) is not None
                counts = events.usage(event) or counts
            if stream.is_done:
                await answer.finish()
                break
        if not (ended or stream.is_done):
            raise events.StreamError("the stream ended before the answer")
        if not times_s and not (counts and counts[1]):
            raise events.StreamError("an answer without a token")
        if not times_s:
            times_s.append(now_s())  # tokens that are no text, such as an end token alone
        return counts
    finally:
        client.release(answer, connection)


def _message(text: str) -> str:
    """What a body with an error says."""
    try:
        body = json.loads(text)
    except ValueError:
        return " ".join(text.split())[:200]
    return events.error_text(body) if isinstance(body, dict) else " ".join(text.split())[:200]


def clock() -> Callable[[], float]:
    """Seconds since this call."""
    began = time.perf_counter()
    return lambda: time.perf_counter() - began
