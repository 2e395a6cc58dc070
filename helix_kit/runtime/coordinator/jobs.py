"""A request on its way through the runtime, and the handle that its caller holds."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from helix_kit.errors import HelixKitError
from helix_kit.flow import Pipeline
from helix_kit.runtime.text import TextStream
from helix_kit.runtime.worker.sampling import SamplingParams
from helix_kit.workload.request import Request, RequestRecord

FinishReason = Literal["stop", "length", "cancelled"]


FailureCode = Literal["queue_full", "too_large", "timeout", "no_pipeline", "closed", "failed"]


class RequestFailedError(HelixKitError):
    """A request was rejected, or could not be finished; the message says why, `code` in one word."""

    def __init__(self, reason: str, code: FailureCode = "failed") -> None:
        self.code: FailureCode = code
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class Piece:
    """What one step added: a token, and the text that became certain with it (often one word, sometimes none)."""

    token_id: int | None
    text: str


@dataclass(frozen=True, slots=True)
class Completion:
    """The answer to one prompt.

    `record` is the same record that the simulator writes: times of arrival, first and last token on the engine's
    clock, and restarts after lost workers.
    """

    text: str
    token_ids: list[int]
    prompt_tokens: int
    finish_reason: FinishReason
    pipeline: Pipeline
    record: RequestRecord

    @property
    def prompt_latency_s(self) -> float:
        """Seconds from submission to the first token."""
        first = self.record.first_token_s
        return float("nan") if first is None else first - self.record.request.arrival_s

    @property
    def decode_latency_s(self) -> float:
        """Mean seconds between tokens after the first."""
        times = self.record.token_times_s
        return (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else float("nan")


class Handle:
    """A submitted request: iterate (or `async for`) over its pieces, wait for `result()`, or `cancel()`."""

    def __init__(self, cancel: Callable[[Handle], None], text: TextStream | None = None) -> None:
        self._cancel = cancel
        self._text = text
        self._untold: list[int] = []
        """Tokens whose text nobody has asked for: it is made by who reads it, or all at once at the end."""
        self._lock = threading.RLock()
        """One that a thread may take twice: an iterator that nobody holds any more may be closed anywhere."""
        self._ended = threading.Event()
        """Who waits for the end is not woken for each token."""
        self._pieces: list[Piece] = []
        self._completion: Completion | None = None
        self._has_text = False
        """Whether the completion has its text."""
        self._error: RequestFailedError | None = None
        self._record: RequestRecord | None = None
        self._listeners: tuple[Callable[[], None], ...] = ()

    @property
    def done(self) -> bool:
        """Whether the request has finished, failed or been cancelled."""
        return self._record is not None

    @property
    def record(self) -> RequestRecord:
        """The record of a request that is done, whatever became of it."""
        self._ended.wait()
        assert self._record is not None, "just waited for"
        return self._record

    def result(self, timeout_s: float | None = None) -> Completion:
        """Wait for the answer.

        Raises TimeoutError after `timeout_s`, RequestFailedError when the request was rejected or failed.
        A cancelled request has what was generated until then.
        """
        if not self._ended.wait(timeout_s):
            raise TimeoutError(f"no answer within {timeout_s} s")
        if self._error is not None:
            raise self._error
        with self._lock:
            self._tell()
        assert self._completion is not None, "done without an error"
        return self._completion

    def cancel(self) -> None:
        """Stop generating; `result()` then returns what there is."""
        self._cancel(self)

    def __iter__(self) -> Iterator[Piece]:
        changed, index = threading.Event(), 0
        self._listen(changed.set)
        try:
            while True:
                changed.clear()
                fresh, done = self._since(index)
                index += len(fresh)
                yield from fresh
                if not fresh:
                    if done:
                        break
                    changed.wait()
            if self._error is not None:
                raise self._error
        finally:
            self._listen(changed.set, stop=True)

    async def __aiter__(self) -> AsyncIterator[Piece]:
        loop, changed, index = asyncio.get_running_loop(), asyncio.Event(), 0

        def notify() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(changed.set)

        self._listen(notify)
        try:
            while True:
                changed.clear()
                fresh, done = self._since(index)
                index += len(fresh)
                for piece in fresh:
                    yield piece
                if not fresh:
                    if done:
                        break
                    await changed.wait()
            if self._error is not None:
                raise self._error
        finally:
            self._listen(notify, stop=True)

    def _listen(self, listener: Callable[[], None], *, stop: bool = False) -> None:
        """Call `listener` whenever something comes, or no longer. Replaced whole: it may be being gone through."""
        with self._lock:
            others = tuple(known for known in self._listeners if known != listener)
            self._listeners = others if stop else (*others, listener)

    def _since(self, index: int) -> tuple[list[Piece], bool]:
        """The pieces from `index` on, and whether they are the last."""
        with self._lock:
            self._tell()
            return self._pieces[index:], self.done

    def _push(self, piece: Piece) -> None:
        with self._lock:
            self._tell()
            self._pieces.append(piece)
        self._notify()

    def _push_token(self, token_id: int) -> None:
        """Add a token whose text cannot end the request."""
        with self._lock:
            self._untold.append(token_id)
        self._notify()

    def _tell(self) -> None:
        """Make the text of what has come, and at the end what had been held back (with the lock)."""
        for token_id in self._untold:
            self._pieces.append(Piece(token_id, self._text.feed(token_id)[0] if self._text else ""))
        self._untold.clear()
        if self._completion is not None and self._text is not None and not self._has_text:
            self._has_text = True
            if rest := self._text.flush():
                self._pieces.append(Piece(None, rest))
            self._completion = replace(self._completion, text=self._text.text)

    def _finish(self, record: RequestRecord, outcome: Completion | RequestFailedError) -> None:
        with self._lock:
            if isinstance(outcome, Completion):
                self._completion = outcome
            else:
                self._error = outcome
            self._record = record
        self._notify()
        self._ended.set()

    def _notify(self) -> None:
        for listener in self._listeners:
            listener()


@dataclass(slots=True, eq=False)
class Job:
    """The coordinator's side of a request."""

    request: Request
    prompt: list[int]
    sampling: SamplingParams
    stop_ids: frozenset[int]
    record: RequestRecord
    handle: Handle
    text: TextStream | None = None
    """The handle's; None: nobody reads text (replays)."""
    deadline_s: float | None = None
    epoch: int = 0
    losses: int = 0
    """Workers that were lost while they had it."""
    pipeline: Pipeline | None = None
    route: Pipeline = ()
    """The workers that carry the pipeline out; more than its nodes where a node has several GPUs."""
    generated: list[int] = field(default_factory=list)

    @property
    def context(self) -> list[int]:
        """Prompt and what has been generated so far: what a new pipeline must prefill."""
        return self.prompt + self.generated

    @property
    def all_tokens(self) -> int:
        """Tokens of context the request may grow to."""
        return self.request.input_tokens + self.request.output_tokens
