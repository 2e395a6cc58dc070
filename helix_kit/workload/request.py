"""One request, and what became of it: the record that simulator and runtime both write."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from helix_kit.flow import Pipeline

Outcome = Literal["finished", "rejected", "in_flight", "cancelled", "failed"]


@dataclass(frozen=True, slots=True)
class Request:
    """A request: `input_tokens` of prompt arrive at `arrival_s`, `output_tokens` are to be generated."""

    id: int
    arrival_s: float
    input_tokens: int
    output_tokens: int


@dataclass(slots=True)
class RequestRecord:
    """What became of a request; times are seconds on the run's clock, None where it has not happened.

    `token_times_s[0]` is the first token (the end of the prompt phase), the rest are decode steps. `reason`
    says why a request was rejected or failed; `restarts` counts re-prefills after a worker was lost.
    """

    request: Request
    outcome: Outcome = "in_flight"
    reason: str | None = None
    pipeline: Pipeline | None = None
    started_s: float | None = None
    first_token_s: float | None = None
    finished_s: float | None = None
    tokens_generated: int = 0
    token_times_s: list[float] = field(default_factory=list)
    restarts: int = 0
