"""What the client of `helix-kit bench` holds against a server that answers at once: requests/s, lag, and CPU time.

    python benchmarks/bench_client.py                     # about half a minute
    python benchmarks/bench_client.py --rate 200 --tokens 32 --seconds 10

The server is a process of its own, which sends each token in an event of its own. The client is not the
bottleneck where its requests leave on time (`lag p99`) and its CPU share is well below one core.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time

import numpy as np

import helix_kit as hk
from helix_kit.bench import BenchOptions, bench

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = b'{"id":"cmpl-1","object":"text_completion","created":1700000000,"model":"stub","choices":[{"index":0,'
TOKEN = EVENT + b'"text":" word","logprobs":null,"finish_reason":null}]}'
LAST = EVENT + b'"text":"","logprobs":null,"finish_reason":"length"}]}'


def chunk(text: bytes) -> bytes:
    """An event as a chunk of a body."""
    data = b"data: " + text + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(data), data)


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gap_s: float) -> None:
    """Requests of one connection: a token every `gap_s` seconds."""
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            if head.startswith(b"get"):
                text = b'{"data":[{"id":"stub"}]}'
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text))
                continue
            body = json.loads(await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0])))
            writer.write(HEAD)
            for _ in range(body["max_tokens"]):
                if gap_s > 0:
                    await asyncio.sleep(gap_s)
                writer.write(chunk(TOKEN))
            usage = {"prompt_tokens": 9, "completion_tokens": body["max_tokens"]}
            end = chunk(LAST) + chunk(json.dumps({"choices": [], "usage": usage}).encode()) + chunk(b"[DONE]")
            writer.write(end + b"0\r\n\r\n")
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def serve(gap_s: float) -> None:
    """Serve until killed; the port is the first line of the output."""
    server = await asyncio.start_server(lambda r, w: answer(r, w, gap_s), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def measure(gap_s: float, load: hk.Workload, options: BenchOptions, tokens: int) -> dict[str, float]:
    """One measurement against a fresh server."""
    stub = subprocess.Popen([sys.executable, __file__, "--serve", str(gap_s)], stdout=subprocess.PIPE, text=True)
    try:
        assert stub.stdout is not None
        url = f"http://127.0.0.1:{stub.stdout.readline().strip()}"
        began_s, cpu_s = time.perf_counter(), time.process_time()
        run = bench(url, load, options)
        took_s, used_s = time.perf_counter() - began_s, time.process_time() - cpu_s
    finally:
        stub.kill()
        stub.wait()
    done = sum(r.outcome == "finished" for r in run.records)
    lags_s = [r.started_s - r.request.arrival_s for r in run.records if r.started_s is not None]
    return {
        "requests": len(run.records), "finished": done, "requests_per_s": round(done / run.window_s, 1),
        "lag_p50_ms": round(1e3 * float(np.percentile(lags_s, 50)), 2),
        "lag_p99_ms": round(1e3 * float(np.percentile(lags_s, 99)), 2),
        "itl_p50_ms": round(1e3 * float(np.median(run.measures()["itl_s"])), 2),
        "cpu_us_per_event": round(1e6 * used_s / max(1, done * (tokens + 2)), 1),
        "cpu_share": round(used_s / took_s, 2),
        "load_average": round(os.getloadavg()[0], 1),
    }  # fmt: skip


def main() -> None:
    """Measure an open loop at the rate, and a closed loop as fast as it goes; a line of JSON each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=200.0, help="requests/s of the open loop")
    parser.add_argument("--tokens", type=int, default=32, help="tokens of an answer")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the open loop")
    parser.add_argument("--gap-ms", type=float, default=15.0, help="time between tokens in the open loop")
    parser.add_argument("--serve", type=float, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve is not None:
        asyncio.run(serve(given.serve))
        return
    words = {"input_tokens": 32, "output_tokens": given.tokens}
    even = hk.Workload.constant(given.rate, given.seconds, **words)
    found = measure(given.gap_ms / 1e3, even, BenchOptions(warmup=4), given.tokens)
    print(json.dumps({"loop": "open", "asked_per_s": given.rate, "tokens": given.tokens, **found}), flush=True)
    many = hk.Workload.constant(1000.0, 3.0, **words)
    found = measure(0.0, many, BenchOptions(warmup=4, concurrency=32), given.tokens)
    print(json.dumps({"loop": "closed, 32 at once, no gaps", "tokens": given.tokens, **found}), flush=True)


if __name__ == "__main__":
    main()
