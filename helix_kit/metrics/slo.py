"""Service level objectives: limits for the latencies of a request, how many requests keep them, and goodput.

>>> SLO.parse("ttft:0.5 tpot:50ms")
SLO(ttft_s=0.5, tpot_s=0.05, e2el_s=None, at=0.99)
"""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from helix_kit._summary import Summarised, number, percent
from helix_kit.errors import InputError
from helix_kit.metrics.times import RequestTimes

LIMITS = ("ttft", "tpot", "e2el")
EXPECTED = "expected limits such as ttft:0.5 tpot:0.05 e2el:20 (seconds, or 500ms), and at:0.99 for the share"
_PART = re.compile(r"(ttft|tpot|e2el|at)(?:_s)?[:=]([^\s,]+)", re.IGNORECASE)


@dataclass(frozen=True)
class SLO:
    """Limits that a request keeps if it keeps each one, and the share of requests that should.

    Raises
    ------
    InputError
        Without any limit, or with one that is not positive.

    Examples
    --------
    >>> SLO(ttft_s=0.5, tpot_s=0.05).at
    0.99
    """

    ttft_s: float | None = None
    """Limit for the time to the first token, in s."""
    tpot_s: float | None = None
    """Limit for the time per output token after the first, in s. Answers of one token keep it."""
    e2el_s: float | None = None
    """Limit for the time from arrival to the last token, in s."""
    at: float = 0.99
    """Share of the requests that should keep all limits."""

    def __post_init__(self) -> None:
        if not self.limits:
            raise InputError("expected at least one of ttft_s, tpot_s and e2el_s", field="slo")
        for name, limit in self.limits.items():
            if not (math.isfinite(limit) and limit > 0):
                raise InputError("expected a positive number of seconds", field=f"slo.{name}_s", value=limit)
        if not 0 < self.at <= 1:
            raise InputError("expected a share above 0 and at most 1", field="slo.at", value=self.at)

    @property
    def limits(self) -> dict[str, float]:
        """Name (ttft, tpot, e2el) -> limit in s, for the limits that are set."""
        return {name: value for name in LIMITS if (value := getattr(self, f"{name}_s")) is not None}

    @classmethod
    def parse(cls, text: str) -> SLO:
        """From text such as ``ttft:0.5 tpot:50ms at:0.95``; limits are separated by spaces or commas."""
        found: dict[str, float] = {}
        for part in re.split(r"[\s,]+", text.strip()):
            match = _PART.fullmatch(part)
            if match is None:
                raise InputError(EXPECTED, field="slo", value=text)
            name = match[1].lower()
            key = name if name == "at" else f"{name}_s"
            if key in found:
                raise InputError(f"expected {name} once", field="slo", value=text)
            found[key] = _seconds(match[2], text) if name != "at" else _share(match[2], text)
        return cls(**found)

    def __str__(self) -> str:
        named = [f"{name.upper()} <= {number(limit)} s" for name, limit in self.limits.items()]
        return f"{', '.join(named)} for {percent(self.at)} of the requests"

    def kept(self, times: RequestTimes) -> np.ndarray:
        """Whether each finished request keeps every limit, shape (requests,)."""
        kept = times.finished.copy()
        for name in self.limits:
            kept &= self.keeps_one(times, name)
        return kept

    def keeps_one(self, times: RequestTimes, name: str) -> np.ndarray:
        """Whether each finished request keeps the limit `name`, shape (requests,)."""
        values = getattr(times, f"{name}_s")
        with np.errstate(invalid="ignore"):
            within = values <= self.limits[name]
        if name == "tpot":
            within = within | (times.output_tokens <= 1)
        return np.asarray(within & times.finished)

    def broken_by(self, times: RequestTimes, now_s: float) -> np.ndarray:
        """Whether each request that is unfinished at `now_s` cannot keep the limits any more, shape (requests,)."""
        has_first = times.first_token_s <= now_s
        broken = np.zeros(len(times.arrival_s), dtype=bool)
        if self.ttft_s is not None:
            broken |= np.where(has_first, times.ttft_s, now_s - times.arrival_s) > self.ttft_s
        if self.tpot_s is not None:
            # The answer ends at now_s or later, so its time per token is at least this.
            least = (now_s - times.first_token_s) / np.maximum(times.asked_tokens - 1, 1)
            broken |= has_first & (times.asked_tokens > 1) & (least > self.tpot_s)
        if self.e2el_s is not None:
            broken |= now_s - times.arrival_s > self.e2el_s
        return broken


def _seconds(text: str, whole: str) -> float:
    factor = 1.0
    for unit, seconds in (("ms", 1e-3), ("s", 1.0)):
        if text.lower().endswith(unit):
            text, factor = text[: -len(unit)], seconds
            break
    try:
        return float(text) * factor
    except ValueError:
        raise InputError(EXPECTED, field="slo", value=whole) from None


def _share(text: str, whole: str) -> float:
    try:
        return float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        raise InputError(EXPECTED, field="slo", value=whole) from None


@dataclass(frozen=True, repr=False)
class Goodput(Summarised):
    """How a run does under an SLO.

    Examples
    --------
    >>> good = Goodput(SLO(ttft_s=1.0), 0.4, 80.0, kept=40, decided=50, kept_by_limit={"ttft": 40})
    >>> good.attainment, good.holds
    (0.8, False)
    """

    slo: SLO
    """The limits."""
    requests_per_s: float
    """Requests/s that finished in the window and kept every limit."""
    output_tokens_per_s: float
    """Tokens/s of these requests that came in the window."""
    kept: int
    """Requests that kept every limit."""
    decided: int
    """Requests whose fate became known: finished, rejected or failed in the window, or late at its end."""
    kept_by_limit: dict[str, int]
    """Limit -> requests that kept it: which limit costs most."""

    @property
    def attainment(self) -> float | None:
        """Share of the decided requests that kept every limit; None when none is decided."""
        return self.kept / self.decided if self.decided else None

    @property
    def holds(self) -> bool:
        """Whether the SLO holds: enough requests kept every limit."""
        return self.attainment is not None and self.attainment >= self.slo.at

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain data, for JSON, with attainment and whether the SLO holds."""
        return {**asdict(self), "attainment": self.attainment, "holds": self.holds}

    def _title(self) -> str:
        return f"({self.slo})"

    def _facts(self) -> dict[str, str]:
        share = "-" if self.attainment is None else percent(self.attainment)
        return {
            "goodput": f"{number(self.requests_per_s)} requests/s",
            "tokens": f"{number(self.output_tokens_per_s)} tokens/s",
            "attainment": f"{share} ({self.kept:,} of {self.decided:,})",
            "holds": "yes" if self.holds else "no",
        }


def goodput_of(times: RequestTimes, tokens_within: np.ndarray, window: tuple[float, float], slo: SLO) -> Goodput:
    """Goodput and attainment within a window.

    A request is decided when its fate becomes known in the window. It has finished; or it was rejected or failed, which
    breaks the SLO; or it is unfinished at the end and late already, which breaks it, too. Requests that are unfinished
    and in time are left out, and so are those that their client has cancelled.

    Parameters
    ----------
    times
        The requests.
    tokens_within
        Tokens of each request that came within the window, shape (requests,).
    window
        (start, end) in s.
    slo
        The limits.

    Returns
    -------
    Goodput
        Of the whole run.

    Examples
    --------
    >>> from helix_kit.workload.request import Request, RequestRecord
    >>> records = [RequestRecord(Request(i, 0.0, 5, 1), outcome="finished", first_token_s=t, finished_s=t,
    ...                          tokens_generated=1) for i, t in enumerate((0.4, 0.6))]
    >>> found = goodput_of(RequestTimes.of(records), np.array([1, 1]), (0.0, 2.0), SLO(ttft_s=0.5))
    >>> found.requests_per_s, found.attainment
    (0.5, 0.5)
    """
    start_s, end_s = window
    ended = (times.ended_s >= start_s) & (times.ended_s <= end_s)
    finished, lost = ended & times.finished, ended & times.lost
    # A cancelled request has an end, a request in flight has none, and both may finish after the window.
    unfinished = (times.arrival_s <= end_s) & (np.isnan(times.ended_s) | (times.ended_s > end_s))
    late = unfinished & slo.broken_by(times, end_s)
    kept = finished & slo.kept(times)
    length_s = end_s - start_s
    return Goodput(
        slo,
        requests_per_s=float(kept.sum() / length_s) if length_s > 0 else 0.0,
        output_tokens_per_s=float(tokens_within[kept].sum() / length_s) if length_s > 0 else 0.0,
        kept=int(kept.sum()),
        decided=int((finished | lost | late).sum()),
        kept_by_limit={name: int((finished & slo.keeps_one(times, name)).sum()) for name in slo.limits},
    )


__all__ = ["SLO", "Goodput", "goodput_of"]
