"""One request over a connection in memory, on a clock that the test moves: every time is exact."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from stub_server import HEAD, answer, chunk

from helix_kit.bench.client import ask
from helix_kit.bench.http import Connection
from helix_kit.bench.options import BenchOptions
from helix_kit.workload.request import Request


class Pipe:
    """A client whose only connection is fed by the test."""

    def __init__(self):
        self.reader = asyncio.StreamReader()
        self.sent = b""

    async def connect(self, *, fresh=False):
        return Connection(self.reader, None)

    async def send(self, method, path, body, connection):
        from helix_kit.bench.http import Answer, _Body, _parse_head

        status, headers = _parse_head(await self.reader.readuntil(b"\r\n\r\n"))
        return Answer(status, headers, _Body(headers, b""), self.reader)

    def release(self, answer, connection):
        self.is_kept = answer.leaves_connection


def measured(script, tokens=4):
    """The record of a request whose bytes come at the times of `script`."""

    async def run():
        now = [10.0]
        pipe = Pipe()
        task = asyncio.create_task(ask(pipe, Request(0, 9.5, 9, tokens), b"", BenchOptions(), lambda: now[0]))
        for at_s, data in script:
            now[0] = at_s
            pipe.reader.feed_data(data)
            for _ in range(10):
                await asyncio.sleep(0)
        return await task, pipe

    # In a thread of its own: another test of this process may have left an event loop running in the main one.
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(asyncio.run, run()).result()


def test_known_delays_exactly():
    pieces = answer(4, 9)
    script = [(10.0, HEAD), (10.25, pieces[0]), (10.5, pieces[1]), (11.5, pieces[2]), (11.75, pieces[3]),
              (12.0, b"".join(pieces[4:]))]  # fmt: skip
    record, pipe = measured(script)
    assert record.outcome == "finished" and record.started_s == 10.0
    assert record.token_times_s == [10.25, 10.5, 11.5, 11.75] and record.finished_s == 11.75
    assert record.first_token_s - record.request.arrival_s == 0.75, "from the moment when it was due"
    assert pipe.is_kept


def test_events_cut_anywhere():
    """The bytes of an answer one by one: nothing depends on how they are cut."""
    whole = HEAD + b"".join(answer(3, 7))
    script = [(10.0 + i, whole[i : i + 1]) for i in range(len(whole))]
    record, pipe = measured(script, tokens=3)
    assert record.tokens_generated == 3 and len(record.token_times_s) == 3 and record.request.input_tokens == 7
    assert record.token_times_s == sorted(set(record.token_times_s)) and pipe.is_kept


def test_several_tokens_in_one_event():
    """Two events for five tokens, as the server counts: the times are those of the events."""
    end = [*answer(5, 9)[5:]]
    texts = [chunk(b'data: {"choices": [{"delta": {"content": "a b"}}]}\n\n')] * 2
    record, _ = measured([(10.0, HEAD), (11.0, texts[0]), (12.0, texts[1]), (13.0, b"".join(end))], tokens=5)
    assert record.token_times_s == [11.0, 12.0, 12.0, 12.0, 12.0] and record.tokens_generated == 5
