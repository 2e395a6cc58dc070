"""A workload: requests over time, from a trace, from the statistics of a trace, or synthetic.

>>> from helix_kit.workload import Workload
>>> workload = Workload.azure_conversation(rate_per_s=2.0, duration_s=60, seed=0)
>>> workload == Workload.azure_conversation(rate_per_s=2.0, duration_s=60, seed=0)
True
>>> first_ten = workload[:10]
>>> len(first_ten), first_ten.duration_s < 60
(10, True)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np

from helix_kit._deprecation import renamed_keywords
from helix_kit._summary import Summarised, number
from helix_kit.errors import InputError
from helix_kit.typical_request import TRACE_INPUT_TOKENS, TRACE_OUTPUT_TOKENS
from helix_kit.workload import samplers
from helix_kit.workload.readers import Row, read_trace
from helix_kit.workload.request import Request, checked_row, row_of, shortened
from helix_kit.workload.sharing import conversation_rows, shared_prompt_rows
from helix_kit.workload.writers import COLUMNS, write_csv, write_mooncake

MEAN_SECONDS_A_REQUEST = 0.05
"""`offline(duration_s=...)` makes one request for each such interval: more than any preset cluster serves."""

_OLD_NAMES = renamed_keywords(rate="rate_per_s", duration="duration_s")


@dataclass(frozen=True, repr=False)
class Workload(Summarised, Sequence[Request]):
    """Requests in order of arrival. A slice of a workload is a workload.

    Raises
    ------
    InputError
        A request has no tokens in or out, or a negative arrival time.

    Examples
    --------
    >>> workload = Workload.constant(rate_per_s=0.5, duration_s=10, input_tokens=700, output_tokens=200)
    >>> len(workload), workload.duration_s
    (5, 8.0)
    """

    requests: tuple[Request, ...]
    """In order of arrival."""
    source: str = "given"
    """Where the requests come from."""
    notes: tuple[str, ...] = field(default=(), compare=False)
    """What a reader should know: the unit of a trace's times, rows that were left out."""

    def __post_init__(self) -> None:
        for request in self.requests:
            if request.input_tokens < 1 or request.output_tokens < 1 or not request.arrival_s >= 0:
                raise InputError(
                    "expected arrival_s >= 0 and at least one token in and out", where=self.source, value=request,
                    field=f"request {request.id}",
                )  # fmt: skip

    @classmethod
    def of(cls, rows: Iterable[Sequence[Any]], source: str = "given", notes: tuple[str, ...] = ()) -> Workload:
        """Requests from rows (arrival in s, input tokens, output tokens). They are sorted and numbered by arrival.

        A row may go on with the request's session, text, prefix and answer, as the fields of `Request`.
        """
        ordered = sorted((checked_row(row) for row in rows), key=lambda row: row[0])
        requests = (Request(i, float(t), int(a), int(b), *more) for i, (t, a, b, *more) in enumerate(ordered))
        return cls(tuple(requests), source, notes)

    @classmethod
    @_OLD_NAMES
    def azure_conversation(
        cls, rate_per_s: float, duration_s: float, *, seed: int = 0, like: Sequence[tuple[int, int]] | None = None
    ) -> Workload:
        """Lengths and bursts as in Azure's conversation trace of 2023, on average 763 tokens in and 232 out.

        As in the paper, there are at most 2048 tokens in and 1024 out.

        Parameters
        ----------
        rate_per_s
            Mean requests/s.
        duration_s
            Arrivals lie in [0, duration_s).
        seed
            The same seed gives the same requests.
        like
            Pairs (input tokens, output tokens): each request has one of them in place of lengths of the trace.
        """
        workload = cls._sampled("azure_conversation", rate_per_s, duration_s, seed)
        if like is None:
            return workload
        lengths = samplers.draw_like(like, len(workload), samplers.generator(seed))
        return cls._joined(np.array([r.arrival_s for r in workload]), lengths, f"{workload.source}, lengths as given")

    @classmethod
    @_OLD_NAMES
    def azure_code(cls, rate_per_s: float, duration_s: float, *, seed: int = 0) -> Workload:
        """Lengths and bursts as in Azure's code trace of 2023, on average 2048 tokens in and 28 out."""
        return cls._sampled("azure_code", rate_per_s, duration_s, seed)

    @classmethod
    def _sampled(cls, name: str, rate_per_s: float, duration_s: float, seed: int) -> Workload:
        rng = samplers.generator(seed)
        arrivals = samplers.draw_arrivals(name, rate_per_s, duration_s, rng)
        return cls._joined(arrivals, samplers.draw_lengths(name, len(arrivals), rng), f"{name} sampler, seed {seed}")

    @classmethod
    @_OLD_NAMES
    def poisson(
        cls,
        rate_per_s: float,
        duration_s: float,
        *,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        seed: int = 0,
    ) -> Workload:
        """Poisson arrivals.

        Parameters
        ----------
        rate_per_s
            Mean requests/s.
        duration_s
            Arrivals lie in [0, duration_s).
        input_tokens, output_tokens
            Length of every request. None: lengths as in the conversation trace.
        seed
            The same seed gives the same requests.
        """
        rng = samplers.generator(seed)
        arrivals = samplers.poisson_arrivals(rate_per_s, duration_s, rng)
        lengths = samplers.draw_lengths("azure_conversation", len(arrivals), rng)
        for column, fixed in enumerate((input_tokens, output_tokens)):
            if fixed is not None:
                lengths[:, column] = fixed
        return cls._joined(arrivals, lengths, f"poisson, seed {seed}")

    @classmethod
    @_OLD_NAMES
    def constant(
        cls,
        rate_per_s: float,
        duration_s: float,
        *,
        input_tokens: int = TRACE_INPUT_TOKENS,
        output_tokens: int = TRACE_OUTPUT_TOKENS,
    ) -> Workload:
        """One request every 1/`rate_per_s` seconds.

        Parameters
        ----------
        rate_per_s
            Requests/s.
        duration_s
            Arrivals lie in [0, duration_s).
        input_tokens, output_tokens
            Length of every request.
        """
        samplers.check_rate(rate_per_s, duration_s)
        count = int(np.ceil(rate_per_s * duration_s - 1e-9))
        return cls.of(((i / rate_per_s, input_tokens, output_tokens) for i in range(count)), "constant")

    @classmethod
    def shared_prompts(
        cls,
        rate_per_s: float,
        duration_s: float,
        *,
        groups: int = 10,
        prompts_per_group: int = 10,
        system_tokens: int = 100,
        question_tokens: int = 400,
        output_tokens: int = 250,
        seed: int = 0,
    ) -> Workload:
        """Poisson arrivals of a fixed set of prompts, round robin: each group of prompts shares a system prompt.

        The benchmarks of serving engines send such traffic. With a prefix cache all but the first use of a prompt finds
        nearly all of its KV cache.

        Parameters
        ----------
        rate_per_s
            Mean requests/s.
        duration_s
            Arrivals lie in [0, duration_s); there are `rate_per_s` x `duration_s` of them.
        groups, prompts_per_group
            System prompts, and different questions for each.
        system_tokens, question_tokens
            Lengths; a prompt has both.
        output_tokens
            Length of every answer.
        seed
            The same seed gives the same requests.
        """
        rows = shared_prompt_rows(
            rate_per_s, duration_s, groups=groups, prompts_per_group=prompts_per_group, system_tokens=system_tokens,
            question_tokens=question_tokens, output_tokens=output_tokens, seed=seed,
        )  # fmt: skip
        return cls.of(rows, f"shared prompts, seed {seed}")

    @classmethod
    def conversations(
        cls,
        rate_per_s: float,
        duration_s: float,
        *,
        turns: int = 4,
        system_tokens: int = 100,
        question_tokens: int = 100,
        output_tokens: int = 200,
        think_s: float = 30.0,
        seed: int = 0,
    ) -> Workload:
        """Conversations: each turn's prompt is the whole conversation so far and a new question.

        Parameters
        ----------
        rate_per_s
            Mean conversations that start in a second (Poisson).
        duration_s
            Conversations start in [0, duration_s); their last turns come later.
        turns
            Mean turns of a conversation (geometric).
        system_tokens
            System prompt of all conversations.
        question_tokens, output_tokens
            Mean length of a question and of an answer (geometric).
        think_s
            Mean time between two turns (exponential); it includes the answer.
        seed
            The same seed gives the same requests.
        """
        rows = conversation_rows(
            rate_per_s, duration_s, turns=turns, system_tokens=system_tokens, question_tokens=question_tokens,
            output_tokens=output_tokens, think_s=think_s, seed=seed,
        )  # fmt: skip
        return cls.of(rows, f"conversations, seed {seed}")

    @classmethod
    @_OLD_NAMES
    def offline(
        cls,
        n: int | None = None,
        *,
        duration_s: float | None = None,
        seed: int = 0,
        like: str | Sequence[tuple[int, int]] = "azure-conversation",
    ) -> Workload:
        """A backlog: all requests arrive at time 0.

        Parameters
        ----------
        n
            Number of requests.
        duration_s
            In place of `n`: as many requests as keep a large cluster busy for this long.
        seed
            The same seed gives the same requests.
        like
            Trace whose lengths the requests have: azure-conversation or azure-code. Or pairs (input tokens, output
            tokens), of which each request has one at random.
        """
        if (n is None) == (duration_s is None):
            raise InputError("expected either n or duration_s", where="offline workload")
        count = n if n is not None else int(np.ceil((duration_s or 0.0) / MEAN_SECONDS_A_REQUEST))
        if count < 1:
            raise InputError("expected at least 1", where="offline workload", field="n", value=n)
        rng = samplers.generator(seed)
        lengths = samplers.draw_like(like, count, rng)
        return cls._joined(np.zeros(count), lengths, f"offline, seed {seed}")

    @classmethod
    def _joined(cls, arrivals: np.ndarray, lengths: np.ndarray, source: str) -> Workload:
        return cls.of(zip(arrivals.tolist(), lengths[:, 0].tolist(), lengths[:, 1].tolist(), strict=True), source)

    @classmethod
    def from_csv(cls, path: str | Path) -> Workload:
        """Requests from a CSV file with the columns arrival_s, input_tokens, output_tokens."""
        trace = read_trace(path)
        if trace.format != "ours":
            raise InputError(f"expected the columns {', '.join(COLUMNS)}", where=path, field="header")
        return cls._from_rows(path, trace.rows, trace.notes)

    @classmethod
    def from_trace(
        cls, path: str | Path, *, columns: Mapping[str, str] | None = None, time_unit: str | None = None
    ) -> Workload:
        """Requests from a trace file; `helix_kit.workload.readers` lists the formats.

        Time starts at the first request, except in our own CSV. `columns` names the columns "arrival", "input" and
        "output" of other files, and `time_unit` ("s", "ms", "us", "ns") overrides the format's own unit.
        """
        trace = read_trace(path, columns, time_unit)
        rows = trace.rows
        if trace.format != "ours" and rows:
            start = min(row.arrival_s for row in rows)
            rows = [row._replace(arrival_s=row.arrival_s - start) for row in rows]
        return cls._from_rows(path, rows, trace.notes)

    @classmethod
    def _from_rows(cls, path: str | Path, rows: list[Row], notes: list[str]) -> Workload:
        if not rows:
            raise InputError("expected at least one request, the trace is empty", where=path)
        return cls.of(rows, Path(path).name, tuple(notes))

    def to_csv(self, path: str | Path) -> None:
        """Write a CSV file from which `from_csv` makes an equal workload."""
        write_csv(self.requests, path)

    def to_mooncake(self, path: str | Path) -> None:
        """Write a trace in Mooncake's format (JSON lines): shared contents as ``hash_ids`` of 512 tokens each."""
        write_mooncake(self.requests, path)

    def limited(self, max_input: int | None = None, max_output: int | None = None) -> Workload:
        """The requests within these lengths, numbered anew."""
        rows = (
            row_of(r, r.arrival_s)
            for r in self.requests
            if r.input_tokens <= (max_input or r.input_tokens) and r.output_tokens <= (max_output or r.output_tokens)
        )
        return Workload.of(rows, self.source, self.notes)

    def shortened(self, max_input: int | None = None, max_output: int | None = None) -> Workload:
        """The same requests, those that are longer cut to these lengths. A note says how many were.

        `limited` leaves long requests out instead, which makes the load smaller.
        """
        for name, value in {"max_input": max_input, "max_output": max_output}.items():
            if value is not None and value < 1:
                raise InputError("expected at least one token", where=self.source, field=name, value=value)
        requests = tuple(shortened(r, max_input, max_output) for r in self.requests)
        cut = sum(new is not old for new, old in zip(requests, self.requests, strict=True))
        ends = [f"{n:,} tokens {end}" for n, end in ((max_input, "in"), (max_output, "out")) if n is not None]
        note = f"{cut:,} of {len(requests):,} requests were longer, and are cut to {' and '.join(ends)}"
        return Workload(requests, self.source, (*self.notes, note) if cut else self.notes)

    @_OLD_NAMES
    def scaled(self, rate_per_s: float) -> Workload:
        """The same requests, arriving at `rate_per_s` requests/s on average."""
        if self.rate_per_s == 0:
            raise InputError(
                "expected requests that arrive over time", where=self.source, field="rate_per_s", value=rate_per_s
            )
        factor = self.rate_per_s / rate_per_s
        rows = (row_of(r, r.arrival_s * factor) for r in self.requests)
        return Workload.of(rows, f"{self.source}, scaled to {rate_per_s:g}/s", self.notes)

    def _title(self) -> str:
        return self.source

    def _facts(self) -> dict[str, str]:
        facts = {"requests": f"{len(self):,}"}
        if not self.requests:
            return facts
        facts["arrivals"] = "all at once"
        if self.duration_s > 0:
            facts["arrivals"] = f"{number(self.rate_per_s)} a second for {number(self.duration_s)} s"
        facts["mean input"] = f"{number(sum(r.input_tokens for r in self) / len(self))} tokens"
        facts["mean output"] = f"{number(sum(r.output_tokens for r in self) / len(self))} tokens"
        return facts

    @cached_property
    def duration_s(self) -> float:
        """Arrival of the last request in s."""
        return self.requests[-1].arrival_s if self.requests else 0.0

    @cached_property
    def rate_per_s(self) -> float:
        """Requests/s between the first and the last arrival, or 0 when all arrive at once."""
        return (len(self) - 1) / self.duration_s if self.duration_s > 0 else 0.0

    @overload
    def __getitem__(self, index: int) -> Request: ...

    @overload
    def __getitem__(self, index: slice) -> Workload: ...

    def __getitem__(self, index: int | slice) -> Request | Workload:
        """A request, or a workload of the requests in a slice. They keep their ids."""
        if isinstance(index, slice):
            return Workload(self.requests[index], self.source, self.notes)
        return self.requests[index]

    def __len__(self) -> int:
        return len(self.requests)

    def __iter__(self) -> Iterator[Request]:
        return iter(self.requests)
