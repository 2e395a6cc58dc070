"""A request, and the record of its outcome that the simulator and the runtime write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from helix_kit._summary import Summarised, number
from helix_kit.errors import InputError
from helix_kit.flow import Pipeline

Segments = tuple[tuple[int, int], ...]
"""Text by its identity: (id of the content, tokens), in order. Equal ids stand for equal text."""
Outcome = Literal["finished", "rejected", "in_flight", "cancelled", "failed"]


@dataclass(frozen=True, slots=True)
class Request:
    """A request for tokens.

    Examples
    --------
    >>> Request(id=0, arrival_s=1.5, input_tokens=700, output_tokens=200).input_tokens
    700
    """

    id: int
    """Unique within a workload."""
    arrival_s: float
    """Seconds on the run's clock."""
    input_tokens: int
    """Tokens of the prompt."""
    output_tokens: int
    """Tokens to generate."""
    session: str | None = None
    """The conversation that it belongs to, where the trace says so."""
    prompt: str | None = None
    """Its text, where the trace has it."""
    prefix: Segments = ()
    """What is known of the prompt's content, from its first token on; the rest is like no other prompt. Prompts that
    begin with the same segments share the KV cache of these tokens where there is a prefix cache."""
    answer: int | None = None
    """Id of the answer's content, where a later prompt repeats it, as the next turn of a conversation does."""


def row_of(request: Request, arrival_s: float) -> tuple[Any, ...]:
    """The row of a request, at another time."""
    contents = (request.session, request.prompt, request.prefix, request.answer)
    return (arrival_s, request.input_tokens, request.output_tokens, *contents)


def shortened(request: Request, max_input: int | None = None, max_output: int | None = None) -> Request:
    """The request with no more tokens than these; the same object if it has no more.

    The segments of `prefix` are kept up to the new length. The prompt's text and the id of its answer are dropped.

    >>> shortened(Request(0, 0.0, 700, 200, prefix=((1, 500), (2, 100))), 550, 300)
    Request(id=0, arrival_s=0.0, input_tokens=550, output_tokens=200, session=None, prompt=None,
    prefix=((1, 500), (2, 50)), answer=None)
    """
    tokens_in = min(request.input_tokens, max_input or request.input_tokens)
    tokens_out = min(request.output_tokens, max_output or request.output_tokens)
    if (tokens_in, tokens_out) == (request.input_tokens, request.output_tokens):
        return request
    if tokens_in == request.input_tokens:
        return replace(request, output_tokens=tokens_out, answer=None)
    kept: list[tuple[int, int]] = []
    left = tokens_in
    for content, tokens in request.prefix:
        if left > 0:
            kept.append((content, min(tokens, left)))
        left -= tokens
    return replace(
        request, input_tokens=tokens_in, output_tokens=tokens_out, prompt=None, prefix=tuple(kept), answer=None
    )


@dataclass(slots=True, repr=False)
class RequestRecord(Summarised):
    """Outcome and times of a request. Times are seconds on the run's clock, or None for what has not happened.

    Examples
    --------
    >>> record = RequestRecord(Request(0, 0.0, 10, 2))
    >>> record.outcome, record.first_token_s
    ('in_flight', None)
    """

    request: Request
    """What was asked for."""
    outcome: Outcome = "in_flight"
    """finished, rejected, in_flight, cancelled or failed."""
    reason: str | None = None
    """Why the request was rejected or failed."""
    pipeline: Pipeline | None = None
    """Stages of its last pipeline."""
    started_s: float | None = None
    """When the scheduler assigned the first pipeline."""
    first_token_s: float | None = None
    """When the prompt phase ended."""
    finished_s: float | None = None
    """When the last token was generated."""
    tokens_generated: int = 0
    """Output tokens so far."""
    token_times_s: list[float] = field(default_factory=list)
    """Time of each token. The first one ends the prompt phase; each further one is a decode step."""
    cached_tokens: int = 0
    """Prompt tokens that the prefix caches of its pipeline held when it was started for the first time."""
    restarts: int = 0
    """Number of new prefills after a worker was lost."""

    def _title(self) -> str:
        return str(self.request.id)

    def _facts(self) -> dict[str, str]:
        facts = {"outcome": self.outcome + (f" ({self.reason})" if self.reason else "")}
        facts["tokens"] = (
            f"{self.request.input_tokens:,} in and {self.tokens_generated:,} of {self.request.output_tokens:,} out"
        )
        facts["arrived at"] = f"{number(self.request.arrival_s)} s"
        for name, time_s in (("first token", self.first_token_s), ("finished", self.finished_s)):
            if time_s is not None:
                facts[name] = f"{number(time_s)} s"
        if self.pipeline:
            facts["stages"] = str(len(self.pipeline))
        return facts


def checked_row(row: Sequence[Any]) -> Sequence[Any]:
    """The row, if it has an arrival and two numbers of tokens."""
    if len(row) < 3:
        expected = "expected rows of arrival in s, input tokens and output tokens"
        raise InputError(expected, where="workload", field="row", value=str(tuple(row)))
    return row
