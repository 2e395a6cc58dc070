"""`bench`: a URL and a workload in, a `Run` out."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from helix_kit import __version__
from helix_kit.bench.client import RefusedError, ask, body_of, clock
from helix_kit.bench.http import Address, Client, TransportError
from helix_kit.bench.options import BenchOptions
from helix_kit.bench.prompts import CALIBRATION_WORDS, WORDS, Prompter, calibrated
from helix_kit.errors import HelixKitError
from helix_kit.report import Run
from helix_kit.workload.request import Request, RequestRecord
from helix_kit.workload.workload import Workload

Progress = Callable[[int, int], None]
"""Called with (requests done, all requests)."""
LATE_S = 0.05
"""Requests that are sent later than this after they are due are told of: the client was too slow."""
MODELS_TIMEOUT_S = 30.0


def bench(url: str, workload: Workload, options: BenchOptions | None = None, progress: Progress | None = None) -> Run:
    """Replay a workload against any server with OpenAI's API, with streaming.

    Each request is sent at its arrival time (open loop), or as soon as one of `concurrency` requests has ended (closed
    loop). Latencies are those of the client: from the moment when a request is due to its events.

    Parameters
    ----------
    url
        Of the server, with or without ``/v1``: of helix_kit, vLLM, SGLang, llama.cpp, exo, or another one.
    workload
        The requests. Their prompts are made up, unless a trace has texts.
    options
        How they are sent; None: `BenchOptions()`.
    progress
        Called with (requests done, all requests).

    Returns
    -------
    Run
        As from `helix_kit.simulate`. Requests that the server refused with status 429 are rejected; those that it
        refused otherwise, broke off, answered with garbage or did not answer in time have failed. `started_s` is when
        a request was sent. Ctrl-C ends the measurement and returns the run until then, marked as partial.

    Raises
    ------
    InputError
        `url` is not a URL.
    HelixKitError
        When no model is named and the server does not say which it has.

    Examples
    --------
    >>> import helix_kit as hk
    >>> load = hk.Workload.poisson(2.0, 60.0, input_tokens=200, output_tokens=50)
    >>> run = bench("http://127.0.0.1:8000/v1", load)                    # doctest: +SKIP
    >>> run.summary()["ttft_s"]["p99"]                                   # doctest: +SKIP
    """
    session = _Session(Address.of(url), workload, options or BenchOptions(), progress)
    return session.run(url)


class _Session:
    """One measurement: the requests, and their records as they end."""

    def __init__(self, address: Address, workload: Workload, options: BenchOptions, progress: Progress | None) -> None:
        self.address, self.workload, self.options, self.progress = address, workload, options, progress
        self.records: dict[int, RequestRecord] = {}
        self.model, self.prompter = options.model or "", Prompter(options.seed)
        self.notes: list[str] = []
        self.is_partial, self.done = False, 0
        self._stop = threading.Event()

    def run(self, url: str) -> Run:
        """Measure, in a thread of its own, since a notebook's thread has an event loop already."""
        failure: list[BaseException] = []

        def work() -> None:
            try:
                asyncio.run(self._measure())
            except BaseException as error:  # handed to the caller's thread
                failure.append(error)

        thread = threading.Thread(target=work, name="helix-kit-bench", daemon=True)
        thread.start()
        try:
            while thread.is_alive():
                thread.join(0.1)
        except KeyboardInterrupt:
            self.is_partial = True
            self._stop.set()
            thread.join(5.0)
        if failure:
            raise failure[0]
        return self._report(url)

    async def _measure(self) -> None:
        headers = {"Authorization": f"Bearer {self.options.api_key}"} if self.options.api_key else {}
        client = Client(self.address, headers)
        try:
            self.model = self.model or await self._first_model(client)
            await self._warm_up(client)
            await self._send_all(client)
        finally:
            client.close()

    async def _first_model(self, client: Client) -> str:
        where = f"{self.address.host_header}{self.address.base}/models"
        try:
            async with asyncio.timeout(MODELS_TIMEOUT_S):
                connection = await client.connect()
                answer = None
                try:
                    answer = await client.send("GET", "/models", b"", connection)
                    text = await answer.text()
                finally:
                    client.release(answer, connection)
            if answer.status != 200:
                raise RefusedError(answer.status, "")
            return str(json.loads(text)["data"][0]["id"])
        except (TransportError, RefusedError, TimeoutError) as error:
            raise HelixKitError(f"{where} does not answer ({error or 'timeout'}): is the server up?") from None
        except (ValueError, KeyError, IndexError, TypeError):
            raise HelixKitError(f"{where} lists no model: name one with `model` (--model)") from None

    async def _warm_up(self, client: Client) -> None:
        """Requests that are not counted; the first two tell how many tokens a word is."""
        needs_words = self.options.prompts == "text" and any(r.prompt is None for r in self.workload)
        if needs_words and self.options.warmup:
            counts = []
            for number in CALIBRATION_WORDS:
                text = " ".join(WORDS[i % len(WORDS)] for i in range(number))
                record = await self._ask(client, Request(-1, 0.0, 1, 1, prompt=text), lambda: 0.0)
                # Without a count, or with an error, the request's own number stays.
                if record.outcome == "finished" and record.request.input_tokens > 1:
                    counts.append(record.request.input_tokens)
            if len(counts) == len(CALIBRATION_WORDS):
                self.prompter = calibrated(self.options.seed, counts)
            else:
                self.notes.append("the server counts no tokens, so each word of a prompt is taken for one token")
        for request in list(self.workload)[: self.options.warmup]:
            await self._ask(client, replace(request, arrival_s=0.0), lambda: 0.0)

    async def _send_all(self, client: Client) -> None:
        requests, now_s = list(self.workload), clock()
        # Bodies are made before, so that the clock runs for the network alone.
        bodies = [self._body(request) for request in requests]
        total = len(requests)

        async def one(index: int, due_s: float) -> None:
            request = replace(requests[index], arrival_s=due_s)
            self.records[index] = RequestRecord(request, started_s=due_s)
            self.records[index] = await ask(client, request, bodies[index], self.options, now_s)
            if self.progress:
                self.done += 1
                self.progress(self.done, total)

        async def closed(indices: list[int]) -> None:
            while indices:
                await one(indices.pop(), now_s())

        now_s = clock()
        if self.options.concurrency is not None:
            waiting = list(range(total))[::-1]
            tasks = [asyncio.create_task(closed(waiting)) for _ in range(min(self.options.concurrency, total))]
        else:
            tasks = []
            for index, request in enumerate(requests):
                while (wait_s := request.arrival_s - now_s()) > 0 and not self._stop.is_set():
                    await asyncio.sleep(min(wait_s, 0.2))
                if self._stop.is_set():
                    break
                tasks.append(asyncio.create_task(one(index, request.arrival_s)))
        while tasks and not self._stop.is_set():
            _, pending = await asyncio.wait(tasks, timeout=0.2)
            if not pending:
                break
        for task in tasks:
            task.cancel()
        for done in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(done, Exception):
                raise done

    def _body(self, request: Request) -> bytes:
        prompt: str | list[int] = self.prompter.text(request)
        if self.options.prompts == "tokens" and request.prompt is None:
            prompt = self.prompter.token_ids(request, self.options.vocab_size)
        return body_of(request, prompt, self.model, self.options)

    async def _ask(self, client: Client, request: Request, now_s: Callable[[], float]) -> RequestRecord:
        return await ask(client, request, self._body(request), self.options, now_s)

    def _report(self, url: str) -> Run:
        records = [self.records.get(i, RequestRecord(request)) for i, request in enumerate(self.workload)]
        lags_s = [r.started_s - r.request.arrival_s for r in records if r.started_s is not None]
        lag_s = float(np.percentile(lags_s, 99)) if lags_s else 0.0
        if lag_s > LATE_S and not self.options.is_closed:
            self.notes.append(f"1 % of the requests were sent {lag_s:.3f} s late or later: the client was too slow")
        finished = [r for r in records if r.outcome == "finished"]
        split = sum(len(set(r.token_times_s)) < len(r.token_times_s) for r in finished)
        if split:
            self.notes.append(f"{split} answers had several tokens in one event: gaps between those count as 0 s")
        short = sum(r.tokens_generated < r.request.output_tokens for r in finished)
        if short:
            self.notes.append(f"{short} answers have fewer tokens than were asked for")
        ends = [r.finished_s for r in records if r.finished_s is not None]
        facts: dict[str, Any] = {
            "measured": True, "engine": "endpoint", "url": url, "model": self.model, "workload": self.workload.source,
            "loop": "closed" if self.options.is_closed else "open", "concurrency": self.options.concurrency,
            "client_lag_p99_s": lag_s, "seed": self.options.seed, "helix_kit": __version__,
        }  # fmt: skip
        failures = Counter(r.reason for r in records if r.outcome == "failed")
        self.notes += [f"{count} failed: {reason}" for reason, count in failures.most_common(5)]
        return Run(
            records, window=(0.0, max(ends, default=0.0)), partial=self.is_partial, notes=self.notes, facts=facts
        )


__all__ = ["bench"]
