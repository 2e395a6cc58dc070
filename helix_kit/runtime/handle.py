"""A submitted request as its caller sees it: the handle, its pieces of text, and the completion at the end."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from helix_kit._summary import Summarised, number
from helix_kit.errors import HelixKitError
from helix_kit.flow import Pipeline
from helix_kit.runtime.logprobs import TokenLogprobs
from helix_kit.runtime.text import TextStream
from helix_kit.workload.request import RequestRecord

MAX_SHOWN_CHARACTERS = 60
"""Of an answer, in the line that shows it."""
FinishReason = Literal["stop", "length", "cancelled"]
FailureCode = Literal[
    "queue_full", "too_large", "timeout", "no_pipeline", "policy_failed", "not_numbers", "closed", "failed"
]


class RequestFailedError(HelixKitError):
    """A request was rejected, or could not be finished.

    Parameters
    ----------
    reason
        The message: why.
    code
        The kind of failure: ``queue_full``, ``too_large`` (its context fits into no pipeline's KV pages), ``timeout``,
        ``no_pipeline`` (the workers that are up do not cover all layers), ``policy_failed`` (the scheduling policy
        raised an exception or returned no pipeline of the plan), ``not_numbers`` (the model's scores are NaN),
        ``closed`` or ``failed``.

    Examples
    --------
    >>> error = RequestFailedError("the queue is full (4 requests wait)", code="queue_full")
    >>> str(error), error.code
    ('the queue is full (4 requests wait)', 'queue_full')
    """

    def __init__(self, reason: str, code: FailureCode = "failed") -> None:
        self.code: FailureCode = code
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class Piece:
    """What one step added to the answer.

    Attributes
    ----------
    token_id
        The token; None for the last text, which no token adds.
    text
        The text that can no longer change since this token: often one word, sometimes nothing.
    logprobs
        Log-probabilities of the token, if the request asked for them.

    Examples
    --------
    >>> Piece(token_id=812, text=" Paris").text
    ' Paris'
    """

    token_id: int | None
    text: str
    logprobs: TokenLogprobs | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Completion(Summarised):
    """The answer to one prompt.

    Attributes
    ----------
    text, token_ids
        What was generated. A stop string is not part of the text; an end-of-text token is part of the token ids.
    prompt_tokens
        Length of the prompt in tokens.
    finish_reason
        ``stop`` (a stop string or the end-of-text token), ``length`` (`max_new_tokens`) or ``cancelled``.
    pipeline
        The nodes that computed the answer, with their layers: the last pipeline, if a worker was lost.
    record
        The same record as the simulator writes: times of arrival, first token and last token on the engine's clock,
        and how often the request was started again after a worker was lost.
    logprobs, prompt_logprobs
        Log-probabilities of each token of the answer and of the prompt (None for its first token); None where the
        request did not ask for them.

    Examples
    --------
    >>> from helix_kit.flow import Stage
    >>> from helix_kit.workload.request import Request, RequestRecord
    >>> record = RequestRecord(Request(0, arrival_s=1.0, input_tokens=3, output_tokens=3))
    >>> record.first_token_s, record.token_times_s = 1.5, [1.5, 1.75, 2.0]
    >>> answer = Completion("w5 w6 w7", [5, 6, 7], 3, "length", (Stage("a", 0, 6),), record)
    >>> answer.prompt_latency_s, answer.decode_latency_s
    (0.5, 0.25)
    """

    text: str
    token_ids: list[int]
    prompt_tokens: int
    finish_reason: FinishReason
    pipeline: Pipeline
    record: RequestRecord
    logprobs: tuple[TokenLogprobs, ...] | None = None
    prompt_logprobs: tuple[TokenLogprobs | None, ...] | None = None

    def _title(self) -> str:
        start = self.text[:MAX_SHOWN_CHARACTERS]
        return repr(start + "..." if len(self.text) > len(start) else start)

    def _facts(self) -> dict[str, str]:
        return {
            "tokens": str(len(self.token_ids)),
            "prompt tokens": str(self.prompt_tokens),
            "ended by": self.finish_reason,
            "prompt latency": f"{number(self.prompt_latency_s)} s",
            "decode latency": f"{number(self.decode_latency_s)} s",
            "nodes": " -> ".join(stage.node for stage in self.pipeline),
        }

    @property
    def prompt_latency_s(self) -> float:
        """Seconds from submission to the first token; nan if there was none."""
        first = self.record.first_token_s
        return float("nan") if first is None else first - self.record.request.arrival_s

    @property
    def decode_latency_s(self) -> float:
        """Mean seconds between tokens after the first; nan for fewer than two tokens."""
        times = self.record.token_times_s
        return (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else float("nan")


class Handle:
    """A submitted request: iterate (or `async for`) over its pieces, wait for `result()`, or `cancel()`.

    A handle is used by two threads: the coordinator adds tokens, the caller reads them. Text is made from tokens by the
    thread that reads it, not by the coordinator.

    Parameters
    ----------
    cancel
        Called with this handle by `cancel()`.
    text
        Turns tokens into text; None: the pieces have no text.

    Examples
    --------
    >>> handle = engine.submit("The capital of France is", max_new_tokens=12)     # doctest: +SKIP
    >>> for piece in handle:                                                      # doctest: +SKIP
    ...     print(piece.text, end="", flush=True)
    >>> handle.result().finish_reason                                             # doctest: +SKIP
    'length'
    """

    def __init__(self, cancel: Callable[[Handle], None], text: TextStream | None = None) -> None:
        self._cancel = cancel
        self._text = text
        self._tokens_without_text: deque[tuple[int, TokenLogprobs | None]] = deque()
        """Tokens that are not pieces yet: their text is made when the caller reads it, at the latest at the end. They
        are added without the lock, and taken out with it."""
        self._lock = threading.RLock()
        """An RLock: the garbage collector may close an iterator in a thread that already holds the lock."""
        self._ended = threading.Event()
        """A separate event for the end, so that `result` does not wake up for each token."""
        self._pieces: list[Piece] = []
        self._completion: Completion | None = None
        self._started = False
        self._has_text = False
        """Whether the completion has its text."""
        self._error: RequestFailedError | None = None
        self._record: RequestRecord | None = None
        self._prompt_logprobs: tuple[TokenLogprobs | None, ...] | None = None
        self._listeners: tuple[Callable[[], None], ...] = ()
        """Called after each change."""

    @property
    def done(self) -> bool:
        """Whether the request has finished, failed or been cancelled."""
        return self._record is not None

    @property
    def started(self) -> bool:
        """Whether workers have taken up the request. Until then it waits at the coordinator."""
        return self._started

    @property
    def record(self) -> RequestRecord:
        """The record of the request, whatever its outcome; waits until the request is done."""
        self._ended.wait()
        assert self._record is not None, "set before the event"
        return self._record

    @property
    def prompt_logprobs(self) -> tuple[TokenLogprobs | None, ...] | None:
        """Those of the prompt's tokens, from the first piece on; None before, and where they were not asked for."""
        return self._prompt_logprobs

    def result(self, timeout_s: float | None = None) -> Completion:
        """Wait for the answer.

        Parameters
        ----------
        timeout_s
            Seconds to wait; None: without a limit.

        Returns
        -------
        Completion
            Of a cancelled request: what was generated until then.

        Raises
        ------
        TimeoutError
            When the request is not done after `timeout_s`.
        RequestFailedError
            When the request was rejected or failed.
        """
        if not self._ended.wait(timeout_s):
            raise TimeoutError(f"no answer within {timeout_s} s")
        if self._error is not None:
            raise self._error
        with self._lock:
            self._make_text()
        assert self._completion is not None, "done without an error"
        return self._completion

    def cancel(self) -> None:
        """Stop generating; `result()` then returns what was generated so far. Does nothing once the request is done."""
        self._cancel(self)

    def __iter__(self) -> Iterator[Piece]:
        changed, index = threading.Event(), 0
        self._add_listener(changed.set)
        try:
            while True:
                changed.clear()
                fresh, done = self._pieces_from(index)
                index += len(fresh)
                yield from fresh
                if not fresh:
                    if done:
                        break
                    changed.wait()
            if self._error is not None:
                raise self._error
        finally:
            self._remove_listener(changed.set)

    async def __aiter__(self) -> AsyncIterator[Piece]:
        loop, changed, index = asyncio.get_running_loop(), asyncio.Event(), 0

        def notify() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(changed.set)

        self._add_listener(notify)
        try:
            while True:
                changed.clear()
                fresh, done = self._pieces_from(index)
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
            self._remove_listener(notify)

    # ---- called by the coordinator's thread ----------------------------------------------------------------------

    def mark_started(self) -> None:
        """Workers have taken up the request."""
        self._started = True

    def add_piece(self, piece: Piece) -> None:
        """Add a token whose text the coordinator has made, because that text may end the request."""
        with self._lock:
            self._make_text()
            self._pieces.append(piece)
        self._notify()

    def add_token(self, token_id: int, logprobs: TokenLogprobs | None = None) -> None:
        """Add a token whose text cannot end the request."""
        self._tokens_without_text.append((token_id, logprobs))
        for listener in self._listeners:
            listener()

    def set_prompt_logprobs(self, logprobs: Sequence[TokenLogprobs | None]) -> None:
        """Add what the request asked to know of its prompt; called before the first token is added."""
        self._prompt_logprobs = tuple(logprobs)

    def finish(self, record: RequestRecord, outcome: Completion | RequestFailedError) -> None:
        """The request is done. A completion needs no text: it is filled in when the caller asks for it."""
        with self._lock:
            if isinstance(outcome, Completion):
                self._completion = outcome
            else:
                self._error = outcome
            self._record = record
        self._notify()
        self._ended.set()

    # ---- both threads --------------------------------------------------------------------------------------------

    def _add_listener(self, listener: Callable[[], None]) -> None:
        # A new tuple, never a change in place: the other thread may be iterating over the old one.
        with self._lock:
            self._listeners = (*self._listeners, listener)

    def _remove_listener(self, listener: Callable[[], None]) -> None:
        with self._lock:
            self._listeners = tuple(known for known in self._listeners if known != listener)

    def _notify(self) -> None:
        for listener in self._listeners:
            listener()

    def _pieces_from(self, index: int) -> tuple[list[Piece], bool]:
        """The pieces from `index` on, and whether the request is done, so that no more will come."""
        with self._lock:
            self._make_text()
            return self._pieces[index:], self.done

    def _make_text(self) -> None:
        """Turn the new tokens into pieces; at the end, add the text that was held back. Needs the lock."""
        while self._tokens_without_text:
            token_id, logprobs = self._tokens_without_text[0]
            self._pieces.append(Piece(token_id, self._text.feed(token_id)[0] if self._text else "", logprobs))
            self._tokens_without_text.popleft()
        if self._completion is not None and self._text is not None and not self._has_text:
            self._has_text = True
            if rest := self._text.flush():
                self._pieces.append(Piece(None, rest))
            self._completion = replace(self._completion, text=self._text.text)
